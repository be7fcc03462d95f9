"""The page and the words about two versions: safe, self-contained, without identifiers, and true to the numbers."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from e2urec_core.report.difference import DifferenceDocument, DifferenceRule, Gate, assemble, headline, render, sentences, text_lines
from tests.html_page import Page
from tests.two_versions import RULE, TITLES, compared, facts, many_rows, pseudonym, rows

HOSTILE = '<script>alert(\'x\')</script>" onload="x" {{ 7 * 7 }} \x07 ]]>'


@cache
def whole() -> DifferenceDocument:
    return compared(forgotten=many_rows(1, 120, 2.0))


@cache
def nobody_forgotten() -> DifferenceDocument:
    return compared()


@cache
def equal_versions() -> DifferenceDocument:
    return compared(many_rows(noise=0))


@cache
def without_rows() -> DifferenceDocument:
    return compared(rows([], [], [], []), forgotten=rows([], [], [], []))


@cache
def one_label() -> DifferenceDocument:
    return compared(rows([1] * 6, [0.5] * 6, [0.6, 0.4, 0.5, 0.7, 0.1, 0.9], [1, 1, 1, 2, 2, 2]))


@cache
def bare_cards() -> DifferenceDocument:
    return assemble(facts(1, gates=[], measures={}, method=""), facts(2, gates=[], measures={}), many_rows(), TITLES, RULE)


@cache
def page_of(case: Any) -> str:
    """The page of one case, drawn once."""
    return render(case())


CASES = [whole, nobody_forgotten, equal_versions, without_rows, one_label, bare_cards]


@pytest.mark.parametrize("case", CASES)
def test_a_page_needs_nothing_from_the_network_and_runs_no_script(case: Any) -> None:
    html = page_of(case)
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "action", "data")]
    assert all(link.startswith("#") for link in links)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert not re.search(r"@import|url\((?!['\"]?#)", html)
    assert not re.search(r"\b(nan|None|inf|undefined>)\b", page.text)


@pytest.mark.parametrize("case", CASES)
def test_every_id_stands_once_and_every_table_that_scrolls_can_be_reached_and_has_headings(case: Any) -> None:
    html = page_of(case)
    ids = [value for name, value in Page(html).attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert html.count('class="wide"') == html.count('<div class="wide" tabindex="0"')
    for table in re.findall(r"<table.*?</table>", html.split("<h2>Provenance</h2>")[0], re.DOTALL):
        assert 'scope="col"' in table


def test_the_page_shows_every_part() -> None:
    page = Page(page_of(whole))
    assert page.tags.count("svg") == 3
    for words in (
        "Version 3 → version 4",
        "On the test rows",
        "On the rows that version 4 has forgotten",
        "Gates to release",
        "Blind: one user.",
        "Change of p(Yes)",
        "Calibration",
        "Answers that turn",
        "Order of users' items",
        "Users that moved most",
        "Items that moved most",
        "Measures on the cards",
        "The numbers of this figure",
    ):
        assert words in page.text


def test_equal_documents_give_equal_bytes_also_by_way_of_json() -> None:
    assert render(whole()) == render(DifferenceDocument.from_json(whole().to_json()))


@pytest.mark.parametrize("case", [whole, nobody_forgotten])
def test_no_number_of_a_user_is_shown_or_stored(case: Any) -> None:
    numbers = [str(user) for user in (*set(many_rows().users.tolist()), *set(many_rows(1, 120, 2.0).users.tolist()))]
    told = case()
    everything = page_of(case) + told.to_json() + "\n".join(text_lines(told))
    assert not any(number in everything for number in numbers)
    assert told.users.most[0].name in page_of(case)
    assert pseudonym(int(many_rows().users[0])) in {
        each.name for each in compared(rule=DifferenceRule(num_draws=10, most_listed=99)).users.most
    }


def test_whatever_a_name_holds_stays_text() -> None:
    gates = [Gate(name=HOSTILE, bound=HOSTILE, passed=False, remark=HOSTILE)]
    words = dict.fromkeys(("kind", "method", "run", "made_at", "digest"), HOSTILE)
    hostile = facts(5, gates=gates, measures={HOSTILE: 1.0}, **words)
    html = render(assemble(hostile, hostile, many_rows(), [HOSTILE] * len(TITLES), RULE, notes=[HOSTILE]))
    page = Page(html)
    assert "script" not in page.tags
    assert "onload" not in [name for name, _ in page.attributes]
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in page.text


def test_control_characters_do_not_reach_a_terminal() -> None:
    hostile = facts(5, gates=[Gate(name="\x1b[31mred", passed=False)])
    lines = text_lines(assemble(hostile, hostile, many_rows(), TITLES, RULE, notes=["a\nb"]))
    assert all(line.isprintable() for line in lines)


def test_the_headline_says_how_many_answers_turn_and_how_far_scores_moved() -> None:
    told = compared(rows([1, 1, 0, 1], [0.9, 0.4, 0.2, 0.8], [0.9, 0.6, 0.4, 0.3], [7, 7, 8, 8]))
    assert headline(told) == (
        "Version 4 gives the same answers as version 3 but for 50 % of the test rows (2 of 4); p(Yes) moved by 0.2250 on average and by "
        "0.5000 at most."
    )


def test_the_headline_says_so_where_no_answer_turns_or_nothing_moved_or_nothing_was_asked() -> None:
    same_answers = compared(rows([1, 0], [0.9, 0.2], [0.8, 0.2], [7, 8]))
    assert headline(same_answers).startswith("Version 4 gives the same answers as version 3 on all 2 test rows; p(Yes) moved by 0.0500")
    assert headline(equal_versions()) == "Version 4 gives exactly the same p(Yes) as version 3 on all 300 test rows."
    assert headline(without_rows()) == "There are no test rows, so nothing can be said of what changes from version 3 to version 4."


def test_a_share_that_is_not_quite_nothing_is_not_shown_as_nothing() -> None:
    told = compared(rows([1] * 20_000, [0.9] * 20_000, [0.4] + [0.9] * 19_999, [user // 4 for user in range(20_000)], [0] * 20_000))
    assert "but for 0.005 % of the test rows (1 of 20,000)" in headline(told)


def test_the_sentences_tell_of_measures_gates_and_forgotten_rows() -> None:
    failed = facts(4, gates=[Gate(name="auc_fall", passed=False), Gate(name="loss_attack", passed=True)])
    told = assemble(facts(3), failed, many_rows(noise=3), TITLES, RULE, forgotten=many_rows(1, 120))
    measures, gates, forgotten = sentences(told)
    assert re.match(
        r"Version 4 against version 3 on the test rows of 30 users: worse in AUC \(−0\.\d{4}\), log loss \(\+\d\.\d{4}\)", measures
    )
    assert gates == "Version 3 passed 2 gates; version 4 failed 1 of 2 gates (auc_fall)."
    assert re.match(r"On the 120 rows that version 4 has forgotten, p\(Yes\) moved by 0\.\d{4} on average, on the test rows by", forgotten)


def test_the_sentences_of_equal_versions_without_gates_are_short() -> None:
    cards = [facts(number, gates=[]) for number in (1, 2)]
    told = assemble(*cards, many_rows(noise=0), TITLES, RULE)
    assert sentences(told) == ["No gate judged either version.", "Version 2 has forgotten nobody whose rows could be asked about."]


def test_few_users_are_said_to_be_too_few() -> None:
    few = "The test rows are of 4 users; with fewer than 20 no difference is told from chance."
    assert sentences(compared(many_rows(num_users=4), DifferenceRule(num_draws=10)))[0] == few


def test_a_gate_that_judged_one_version_alone_is_not_judged_for_the_other() -> None:
    told = assemble(facts(3, gates=[]), facts(4), many_rows(), TITLES, RULE)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", render(told).split(">Gates to release<")[1])
    assert cells[:8] == ["–", "–", "–", "not judged", "−0.001", "at most 0.01", "0.011", "passed"]
    assert "No gate judged version 3; version 4 passed 2 gates." in sentences(told)


def test_the_lists_say_how_many_have_too_few_rows() -> None:
    page = Page(page_of(one_label)).text
    assert "The 2 users with the largest mean |change|. " in page
    assert "0 of 2 users" not in page
    assert "Nothing to list: 6 of 6 items have fewer than 3 test rows and are left out." in page
    assert "Nothing to list: no user with 3 test rows or more moved." in Page(page_of(equal_versions)).text


def test_the_terminal_reads_the_numbers_of_the_page() -> None:
    told = whole()
    text = Page(page_of(whole)).text
    lines = text_lines(told)
    assert lines[0] == headline(told)
    for line in (line for line in lines if line.startswith(("AUC", "Log loss", "Accuracy", "Calibration error", "Mean p(Yes)"))):
        assert all(number in text for number in re.findall(r"[+−]?\d\.\d{4}", line))
    assert sum(line.startswith(("AUC", "Mean p(Yes)")) for line in lines) == 2
    assert any(
        re.match(r"20 users that moved most, mean \|change\| 0\.\d{4} down to 0\.\d{4} \(0 of 30 have fewer", line) for line in lines
    )
    assert any(line.startswith("20 items that moved most") for line in lines)


def test_a_line_of_a_list_holds_the_numbers_under_their_headings() -> None:
    told = compared(rows([1, 1, 1], [0.5] * 3, [0.75, 0.75, 0.25], [7] * 3, [0, 0, 0]))
    html = page_of(lambda: told)
    # Mean of 0.25, 0.25, -0.25; before: log 2 = 0.6931; after: -(2 log 0.75 + log 0.25) / 3 = 0.6539.
    assert re.search(r"Log loss before</th><th[^>]*>Log loss after</th>", html)
    cells = "</td><td>".join(("3", "0.2500", "+0.0833", "0.6931", "0.6539"))
    assert html.count(f"</th><td>{cells}</td>") == 2
