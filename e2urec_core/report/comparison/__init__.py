"""The report of a comparison: many methods on the same rows over several seeds, with what chance alone would give beside them."""

from e2urec_core.report.comparison.page import render
from e2urec_core.report.comparison.schema import ComparisonDocument
from e2urec_core.report.comparison.wording import summary, text_table

__all__ = ["ComparisonDocument", "render", "summary", "text_table"]
