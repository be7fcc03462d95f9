"""The page about polluted users: counts that add up, words that fit them, nobody's name."""

from __future__ import annotations

import numpy
import pytest

from e2urec_core.pollution.evidence import HeldOut
from e2urec_core.pollution.proposal import find
from e2urec_core.pollution.rule import FindRule, FoldRule
from e2urec_core.report.pollution import PollutionDocument, assemble, headline, render, sentences
from tests.html_page import Page

FOLDS = FoldRule(quality="self_confidence")


def document(rule: FindRule) -> PollutionDocument:
    """One user of ten contradicts what is expected; 21 rows each, and one label of every other is turned around."""
    labels, yes, users = [], [], []
    for user in range(10):
        told = [(0, 0.97)] * 21 if user == 0 else [(1, 0.97), (0, 0.03)] * 10 + [(0, 0.98)]
        users += [1000 + user] * len(told)
        labels += [label for label, _ in told]
        yes += [probability for _, probability in told]
    held = HeldOut(numpy.arange(len(users)), numpy.array(users), numpy.array(labels), numpy.array(yes))
    return assemble(find(held, FOLDS, rule), 3, FOLDS, rule)


def test_counts_add_up() -> None:
    told = document(FindRule(propose="both"))
    assert (told.num_users, told.num_rows, told.num_set_aside) == (10, 210, 3)
    assert (told.num_proposed_users, told.num_proposed_rows, told.num_proposed_interactions) == (1, 21, 9)
    assert sum(bar.users for bar in told.bars) == 10
    # The one proposed user has a mean quality of 0.03.
    assert [bar.proposed for bar in told.bars if bar.low <= 0.03 < bar.high] == [1]
    assert sum(bar.proposed for bar in told.bars) == 1
    assert told.expected_interaction_precision == pytest.approx(0.98)
    assert PollutionDocument.from_json(told.to_json()) == told


def test_words_fit_what_was_asked_for() -> None:
    assert headline(document(FindRule())) == "Proposed to be forgotten: 1 of 10 users with 21 training rows."
    assert headline(document(FindRule(propose="interactions"))) == "Proposed to be forgotten: 9 single interactions of other users."
    nobody = document(FindRule(at_most=0.001))
    assert nobody.expected_precision is None
    assert not any("expects" in sentence for sentence in sentences(nobody))


@pytest.mark.parametrize("rule", [FindRule(), FindRule(propose="both"), FindRule(at_most=0.001)], ids=["users", "both", "nobody"])
def test_the_page_says_what_the_terminal_says_and_names_nobody(rule: FindRule) -> None:
    told = document(rule)
    text = render(told)
    page = Page(text)
    for said in (headline(told), *sentences(told)):
        assert said in page.text
    assert "<script" not in text
    assert "polluted.csv" in text
    assert not any(str(user) in text for user in range(1000, 1010))
    assert text == render(told)
