"""One row per method of a report: what it still knows, what it forgot, what it cost. A number that is undefined is missing, never NaN."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, matches


class ReportTable(Contract):
    """Column names of `REPORT_ROW`."""

    method: ClassVar[str] = "method"
    auc: ClassVar[str] = "auc"
    accuracy: ClassVar[str] = "accuracy"
    log_loss: ClassVar[str] = "log_loss"
    forget_auc: ClassVar[str] = "forget_auc"
    attack_auc: ClassVar[str] = "attack_auc"
    jsd: ClassVar[str] = "jsd"
    half_jeffreys: ClassVar[str] = "half_jeffreys"
    l2: ClassVar[str] = "l2"
    residual: ClassVar[str] = "residual"
    seconds: ClassVar[str] = "seconds"
    all_in_seconds: ClassVar[str] = "all_in_seconds"
    trainable_parameters: ClassVar[str] = "trainable_parameters"
    total_parameters: ClassVar[str] = "total_parameters"


_SHARES = {
    ReportTable.auc: "Area under the ROC curve on the test rows, 0 to 1; missing where they hold one label only.",
    ReportTable.accuracy: "Share of test rows answered rightly at one half, 0 to 1.",
    ReportTable.forget_auc: "Area under the ROC curve on the forgotten rows, 0 to 1; missing where they hold one label only.",
    ReportTable.attack_auc: "How well an attacker tells forgotten rows from unseen ones, 0 to 1; one half is a guess.",
    ReportTable.jsd: "Mean Jensen-Shannon divergence from the retrained model on the forgotten rows, 0 to 1; missing without one.",
}
_AT_LEAST_ZERO = {
    ReportTable.log_loss: "Mean negative log-likelihood of the test rows, in nats.",
    ReportTable.half_jeffreys: "Half the mean Jeffreys divergence from the retrained model on the forgotten rows, in nats.",
    ReportTable.l2: "Euclidean distance from the retrained model's answers on the forgotten rows.",
}
_SECONDS = {
    ReportTable.seconds: "Wall-clock seconds of the method itself.",
    ReportTable.all_in_seconds: "Wall-clock seconds with everything that had to be made for the method first.",
}
_PARAMETERS = {
    ReportTable.trainable_parameters: "Parameters that the method trained.",
    ReportTable.total_parameters: "Parameters of the whole recommender.",
}
_RESIDUAL = {ReportTable.residual: "What the forgotten rows left behind, by the audit; may be negative."}

REPORT_ROW = ReportTable(
    name="report",
    columns=(
        Column(ReportTable.method, pa.string(), "Which method the row is about."),
        *(
            Column(name, pa.float64(), (_SHARES | _AT_LEAST_ZERO | _RESIDUAL)[name], nullable=True)
            for name in (
                ReportTable.auc,
                ReportTable.accuracy,
                ReportTable.log_loss,
                ReportTable.forget_auc,
                ReportTable.attack_auc,
                ReportTable.jsd,
                ReportTable.half_jeffreys,
                ReportTable.l2,
                ReportTable.residual,
            )
        ),
        *(Column(name, pa.float64(), sentence) for name, sentence in _SECONDS.items()),
        *(Column(name, pa.int64(), sentence) for name, sentence in _PARAMETERS.items()),
    ),
    rules=(
        matches(ReportTable.method, r"\S"),
        *(finite(name) for name in (_SHARES | _AT_LEAST_ZERO | _RESIDUAL | _SECONDS)),
        *(between(name, 0, 1) for name in _SHARES),
        *(between(name, 0, None) for name in (_AT_LEAST_ZERO | _SECONDS | _PARAMETERS)),
    ),
)
