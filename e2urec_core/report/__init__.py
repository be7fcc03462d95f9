"""The report of one run: the documented schema of report.json, its three plots, and the page that shows both.

Everything that is printed, drawn or put on the page comes from a `ReportDocument` alone, so an old report.json can be shown again.
"""

from e2urec_core.report.page import render
from e2urec_core.report.schema import (
    CurvePoint,
    ForgottenTestRow,
    Histogram,
    MethodRow,
    ReportDocument,
    SeedFloor,
    Spread,
    StageTime,
)
from e2urec_core.report.wording import summary, text_table

__all__ = [
    "CurvePoint",
    "ForgottenTestRow",
    "Histogram",
    "MethodRow",
    "ReportDocument",
    "SeedFloor",
    "Spread",
    "StageTime",
    "render",
    "summary",
    "text_table",
]
