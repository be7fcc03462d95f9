"""What the gates look at: the scores of the candidate and of those it is held against, on the same rows, and whose rows they are.

Users are numbers here, as in the tokens; no name is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from e2urec_core.data.batches import Prompts
from e2urec_core.data.tokens import prompts_of_part, prompts_of_split
from e2urec_core.errors import BadInput
from e2urec_core.evaluation import Scored
from e2urec_core.scoring import read_scores

CANDIDATE, CHAMPION, RETRAIN, FURTHER = "candidate", "champion", "retrain", "further"
ROLES = (CANDIDATE, CHAMPION, RETRAIN, FURTHER)
TEST, FORGOTTEN, STRANGERS = "test", "forgotten", "holdout"
GROUPS = (TEST, FORGOTTEN, STRANGERS)


@dataclass(frozen=True)
class Evidence:
    """Scores by group of rows and role.

    Args:
        groups: Rows of each of `GROUPS`; p(Yes) by role, NaN where a table has no such rows. Further Retrains are `further_1`, ...
        users: Number of the user of each row by group, (row,) each.
        training_users: Number of the user of each training row, (row,).
    """

    groups: Mapping[str, Scored]
    users: Mapping[str, numpy.ndarray]
    training_users: numpy.ndarray

    def has(self, role: str) -> bool:
        """Whether somebody of that role was scored."""
        return role in self.groups[TEST].yes

    @property
    def further(self) -> list[str]:
        """Names of the further Retrains."""
        return [role for role in self.groups[TEST].yes if role.startswith(FURTHER)]

    def fault(self, group: str, *roles: str, chosen: numpy.ndarray | None = None) -> str:
        """Why nothing can be measured of these roles on the group's rows, or on those `chosen` of them; empty where it can."""
        rows = self.groups[group]
        absent = [role for role in roles if role not in rows.yes]
        if absent:
            return f"no {absent[0]} was scored"
        answers = [rows.yes[role] if chosen is None else rows.yes[role][chosen] for role in roles]
        if not len(answers[0]):
            return f"there are no such {group} rows"
        strange = int((~numpy.isfinite(answers)).any(axis=0).sum())
        return f"{strange:,} of {len(answers[0]):,} {group} rows have no score" if strange else ""

    def counts(self) -> dict[str, int]:
        """Rows and users of every group."""
        told = {f"{group}_rows": len(rows.labels) for group, rows in self.groups.items()}
        return {**told, **{f"{group}_users": len(numpy.unique(self.users[group])) for group in self.groups}}


def rows_of(tokens: Path, request: Path, retold: Path | None = None) -> dict[str, Prompts]:
    """The rows of each of `GROUPS`; folders as for `prompts_of_part`."""
    return {group: prompts_of_part(tokens, request, group, retold) for group in GROUPS}


def gather(scored: Sequence[tuple[str, Path, str]], rows: Mapping[str, Prompts], tokens: Path) -> Evidence:
    """Read every table of scores and put its rows beside the others'.

    Args:
        scored: Role, folder of the scores, and the name that the model has in them; `further` may come several times.
        rows: See `rows_of`.
        tokens: Folder of the tokens, for whose rows were trained on.

    Raises:
        BadInput: A role is unknown or taken twice; a table holds other rows than the tokens.
    """
    roles: dict[str, tuple[Path, str]] = {}
    for role, folder, name in scored:
        own = f"{FURTHER}_{1 + sum(each.startswith(FURTHER) for each in roles)}" if role == FURTHER else role
        if role not in ROLES or own in roles:
            raise BadInput(f"the role `{role}` is {'taken twice' if own in roles else 'unknown'}", hint=f"roles: {', '.join(ROLES)}")
        roles[own] = folder, name
    told = {role: read_scores(folder, [name], GROUPS) for role, (folder, name) in roles.items()}
    groups = {}
    for group, prompts in rows.items():
        yes = {role: _answers(role, told[role][group], name, group, prompts) for role, (_, name) in roles.items()}
        groups[group] = Scored(prompts.example_ids, prompts.labels, yes)
    users = {group: _users(prompts) for group, prompts in rows.items()}
    return Evidence(groups, users, _users(prompts_of_split(tokens, "train")))


def _answers(role: str, table: Scored, name: str, group: str, rows: Prompts) -> numpy.ndarray:
    if not len(table.example_ids):
        return numpy.full(len(rows), numpy.nan)
    if not numpy.array_equal(table.example_ids, rows.example_ids):
        raise BadInput(
            f"the {len(table.example_ids):,} {group} rows on which the {role} was scored are not the {len(rows):,} of the tokens",
            hint="score it again under the same request",
        )
    return table.yes[name]


def _users(rows: Prompts) -> numpy.ndarray:
    assert rows.users is not None, "tokens know their users"
    return rows.users
