"""What was found in words: the page and the terminal say the same."""

from __future__ import annotations

from e2urec_core.report.pollution.schema import PollutionDocument
from e2urec_core.report.wording import whole


def counted(number: int, one: str) -> str:
    """A count with its noun.

    >>> counted(1, "user"), counted(1200, "user")
    ('1 user', '1,200 users')
    """
    return f"{whole(number)} {one}" if number == 1 else f"{whole(number)} {one}s"


def headline(document: PollutionDocument) -> str:
    """Who and what is proposed, in one sentence."""
    parts = []
    if document.settings["finder"]["propose"] != "interactions":
        rows = counted(document.num_proposed_rows, "training row")
        parts.append(f"{whole(document.num_proposed_users)} of {counted(document.num_users, 'user')} with {rows}")
    if document.settings["finder"]["propose"] != "users":
        parts.append(f"{counted(document.num_proposed_interactions, 'single interaction')} of other users")
    return f"Proposed to be forgotten: {' and '.join(parts)}."


def text_table(document: PollutionDocument) -> list[list[str]]:
    """What was found as text, the header first: what, how many."""
    counts = {
        "Users": document.num_users,
        "Training rows": document.num_rows,
        "Users whose labels luck does not explain": document.num_doubted,
        "Users proposed": document.num_proposed_users,
        "Their training rows": document.num_proposed_rows,
        "Single interactions proposed": document.num_proposed_interactions,
    }
    lines = [["What", "How many"], *([name, whole(count)] for name, count in counts.items())]
    if document.expected_precision is not None:
        lines.append(["Precision that the search expects", f"{document.expected_precision:.3f}"])
    return lines


def sentences(document: PollutionDocument) -> list[str]:
    """What the numbers mean and do not mean."""
    level, at_most = (document.settings["finder"][name] for name in ("level", "at_most"))
    said = []
    if document.settings["finder"]["propose"] != "interactions":
        said.append(
            f"Of {counted(document.num_doubted, 'user')} the labels are less expected than luck explains (q below {level:g}); proposed are "
            f"those of them whose labels have a mean probability of {at_most:g} or less."
        )
    if document.expected_precision is not None:
        said.append(
            f"Precision that the search expects: {document.expected_precision:.3f} (1 less the mean q). It counts luck in rows as the only "
            "false alarm: a user with a rare taste is no luck and may be among the proposed."
        )
    if document.expected_interaction_precision is not None:
        said.append(
            f"Mean probability of the other label over the proposed interactions: {document.expected_interaction_precision:.3f}. "
            "A rare but true like looks the same."
        )
    if document.num_set_aside:
        said.append(f"In the last round {counted(document.num_set_aside, 'suspected user')} trained no network.")
    return said
