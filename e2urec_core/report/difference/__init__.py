"""The page that compares two released recommenders: what changes for whom when version B takes the place of version A."""

from e2urec_core.report.difference.assemble import PairedRows, assemble
from e2urec_core.report.difference.page import render
from e2urec_core.report.difference.schema import DifferenceDocument, DifferenceRule, Gate, VersionFacts
from e2urec_core.report.difference.wording import headline, sentences, text_lines

__all__ = [
    "DifferenceDocument",
    "DifferenceRule",
    "Gate",
    "PairedRows",
    "VersionFacts",
    "assemble",
    "headline",
    "render",
    "sentences",
    "text_lines",
]
