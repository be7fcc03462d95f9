"""The last part of `thirty_nights`: scores the first champion, the last one and four Retrains on the first night's rows.

`python -m benchmarks.nights_measured FOLDER`, with the folder of `thirty_nights`; prints one JSON document.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy
from prefect import flow

from e2urec_core.artifacts import Bundle, Model
from e2urec_core.data.forget import ForgetRule
from e2urec_core.judging import SCORED
from e2urec_core.ledger import ledger_place, open_ledger
from e2urec_core.ledger.releases import Releases
from e2urec_core.metrics.utility import auc, log_loss
from e2urec_core.scoring import read_scores
from e2urec_core.settings import ScoreRule
from e2urec_core.store import Store
from flows.nights import LADDER, build_nightly
from flows.releasing import chapter
from flows.rooms import open_room
from flows.surroundings import prepare
from tasks._snapshot import snapshot_of
from tasks.forget import choose_forgotten
from tasks.retell import retell, retell_changed
from tasks.score import score
from tasks.tokenise import read_by
from tasks.train import train_retrained

RETRAINS = 4


def measured(folder: Path) -> dict[str, Any]:
    """How far the last champion lies from Retrains without everybody who asked, on the first night's rows."""
    place, last = prepare(folder / "first"), folder / "workspace"
    (place / "mlflow.db").unlink(missing_ok=True)
    file = folder / "everybody.csv"
    first_ledger, ledger = (open_ledger(ledger_place(each)) for each in (place, last))
    first, now = (Releases(each).release(Releases(each).line().champion or "") for each in (first_ledger, ledger))
    snapshot = snapshot_of(place, Store(place / "store"), first_ledger, first.bundle, first.run)
    night = build_nightly(snapshot.settings, LADDER, None, {})
    released = next(handle for handle in Store(last / "store").all(Bundle) if handle.digest == now.bundle)
    with Store(place / "store").workplace() as scratch:
        shutil.copytree(Store(last / "store").open(released), scratch / "copy")
        bundle = Store(place / "store").adopt(Bundle, now.bundle, scratch / "copy")
    before = next(handle for handle in Store(place / "store").all(Bundle) if handle.digest == first.bundle)

    @flow(persist_result=False)
    def scored() -> dict[str, Any]:
        with open_room(night, ("measure",), place) as room:
            rule = ForgetRule(deletions_file=file)
            request = choose_forgotten(snapshot.rows, snapshot.examples, rule, night.seed)
            retold = retell_changed(snapshot.rows, request, snapshot.tokens, night.prompt)
            models: dict[str, Model] = {"original": before, "nights": bundle}
            for further in range(RETRAINS):
                seat = night.seat().model_copy(update={"seed": night.seed + further})
                given = snapshot.tokens, request, night.backbone, night.training, seat
                models[f"retrain {further}"] = train_retrained(*given, paired=further == 0, retold=retold)
            answers = {}
            for name, model in models.items():
                with chapter(name):
                    tokens = snapshot.tokens
                    if isinstance(model, Bundle):
                        tokens = read_by(room, model, snapshot.rows, snapshot.examples, snapshot.tokens, night.prompt)
                    told = retold if tokens == snapshot.tokens or not retold else retell(snapshot.rows, request, tokens, night.prompt)
                    answers[name] = read_scores(room.store.open(score(model, tokens, request, ScoreRule(), night.seat(), told)), [SCORED])
        gone = {name: groups["forgotten"].yes[SCORED] for name, groups in answers.items()}
        labels = answers["original"]["forgotten"].labels
        retrains = [name for name in gone if name.startswith("retrain")]

        def distance(name: str) -> float:
            others = [gone[each] for each in retrains if each != name]
            return float(numpy.abs(gone[name] - numpy.mean(others, axis=0)).mean())

        def paired(name: str) -> float:
            return float(numpy.abs(gone[name] - gone["retrain 0"]).mean())

        return {
            "test_auc": {name: auc(groups["test"].labels, groups["test"].yes[SCORED]) for name, groups in answers.items()},
            "forgotten_loss": {name: log_loss(labels, yes) for name, yes in gone.items()},
            "residual": {name: paired(name) / paired("original") for name in gone},
            # Of a Retrain, to the mean of the others.
            "residual_to_mean_of_retrains": {name: distance(name) / distance("original") for name in gone},
            "forgotten_rows": len(labels),
        }

    return dict(scored())


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]))))
