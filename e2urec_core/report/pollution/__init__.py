"""The page about users whose labels nobody else leads one to expect: counts alone, nobody's name."""

from e2urec_core.report.pollution.assemble import assemble
from e2urec_core.report.pollution.page import render
from e2urec_core.report.pollution.schema import PollutionDocument
from e2urec_core.report.pollution.wording import headline, sentences, text_table

__all__ = ["PollutionDocument", "assemble", "headline", "render", "sentences", "text_table"]
