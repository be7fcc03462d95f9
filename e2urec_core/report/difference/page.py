"""The comparison of two versions as one page that needs nothing else: a single HTML file without a script."""

from __future__ import annotations

from pathlib import Path

from e2urec_core.report.difference import wording
from e2urec_core.report.difference.plots import drawings
from e2urec_core.report.difference.schema import DifferenceDocument
from e2urec_core.report.page import flat, templates


def render(document: DifferenceDocument) -> str:
    """The page; equal documents give equal bytes."""
    card = wording.card_table(document)
    groups = [("On the test rows", document.test)]
    if document.forgotten is not None:
        groups.append((f"On the rows that {wording.named(document.b)} has forgotten", document.forgotten))
    return (
        templates(Path(__file__).parent)
        .get_template("difference.html")
        .render(
            document=document,
            heading=wording.heading(document),
            sizes=[wording.counted(document.test.num_rows, "test row"), wording.counted(document.test.num_users, "user")],
            headline=wording.headline(document),
            sentences=wording.sentences(document),
            facts=wording.facts_table(document),
            measures=[wording.measures_table(document, changes, name) for name, changes in groups],
            meanings=dict(wording.MEASURES.values()),
            gates=wording.gate_lines(document),
            gate_columns=wording.GATE_COLUMNS,
            drawings=drawings(document),
            flips=wording.flips_table(document),
            ranks=wording.ranks_table(document),
            moved=[
                (
                    wording.moved_table(moved.most, f"{one.capitalize()}s that moved most", one.capitalize()),
                    wording.on_moved(document, moved, one),
                )
                for one, moved in (("user", document.users), ("item", document.items))
            ],
            card=card if card.lines else None,
            folded={
                "How they were compared": dict(flat(document.rule.canonical())),
                "Digests of the recommenders": {f"Version {facts.version}": facts.digest for facts in (document.a, document.b)},
            },
        )
    )
