"""What a search for one user looks for: the identifier, and everything that is worked out from it.

An identifier such as `17` stands in every file by chance. So an identifier is called distinctive where nothing else is spelled like it:
it has at least 5 characters with a letter and a digit among them, or at least 8 characters that are not all digits. Only a distinctive
one is looked for where nothing says what a text is; pseudonyms and numbers of 10 and more digits are distinctive always.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from e2urec_core.data.tokens import user_numbers
from e2urec_core.errors import BadInput
from e2urec_core.pseudonyms import Pseudonyms

FEWEST_MIXED, FEWEST_ANY, FEWEST_DIGITS = 5, 8, 10
IDENTIFIER, SUCCESSOR, PSEUDONYM, NUMBER, EXAMPLE, ROW, UNREADABLE = (
    "identifier",
    "identifier of a successor",
    "pseudonym",
    "user number",
    "example id",
    "row of the interaction",
    "not readable, so it may hold anything",
)
"""Kinds of what is found."""
MOST_TOGETHER = 200
"""Most users of one search: each goes through the whole workspace once."""
KINDS = (IDENTIFIER, SUCCESSOR, PSEUDONYM, NUMBER, EXAMPLE)


@dataclass(frozen=True)
class Targets:
    """What is looked for.

    Args:
        user: The data's own name of the user.
        items: Only the user's interactions with these are looked for; empty looks for the user.
        pseudonyms: Of the user or the interactions, 20 hex digits each.
        number: The user's number in the tokens; None where single interactions are looked for.
        examples: Numbers of the user's rows, at least 10 digits each.
        together: Further users who are looked for in the same search; see `Targets.of_many`.
        further: Their numbers in the tokens.
    """

    user: str
    items: frozenset[str] = frozenset()
    pseudonyms: frozenset[str] = frozenset()
    number: int | None = None
    examples: frozenset[int] = frozenset()
    together: tuple[str, ...] = ()
    further: frozenset[int] = frozenset()

    @classmethod
    def of_many(cls, users: Iterable[str], most: int = MOST_TOGETHER) -> list[Targets]:
        """Searches for many users, each for at most `most` of them, all of whose identifiers are recognised in the same way.

        Raises:
            BadInput: One of them has no name.
        """
        groups: dict[tuple[bool, bool, bool], list[Targets]] = {}
        for each in map(cls.of, sorted(set(users))):
            groups.setdefault((each.is_number, each.is_mixed, each.is_distinctive), []).append(each)
        return [
            replace(first, together=tuple(each.user for each in more), further=frozenset(each.number for each in more if each.number))
            for group in groups.values()
            for at in range(0, len(group), most)
            for first, *more in [group[at : at + most]]
        ]

    @property
    def users(self) -> tuple[str, ...]:
        """Everybody who is looked for."""
        return (self.user, *self.together)

    @classmethod
    def of(cls, user: str, items: Iterable[str] = (), examples: Iterable[int] = ()) -> Targets:
        """What is known of a user without looking at anything.

        Raises:
            BadInput: The user or an item has no name.
        """
        chosen = frozenset(items)
        if not user.strip() or any(not item.strip() for item in chosen):
            raise BadInput("the user or an item to look for has an empty name", hint="give the data's own name")
        number = None if chosen else user_numbers(pa.array([user]))[0].as_py()
        return cls(user, chosen, number=number, examples=frozenset(examples))

    @property
    def is_number(self) -> bool:
        """Whether the identifier is digits alone, as items, counts and times are, too."""
        return self.user.isascii() and self.user.isdigit()

    @property
    def is_mixed(self) -> bool:
        """Whether there are a letter and a digit in the identifier."""
        return any(letter.isalpha() for letter in self.user) and any(letter.isdigit() for letter in self.user)

    @property
    def is_distinctive(self) -> bool:
        """Whether nothing but the user is spelled like this."""
        return (self.is_mixed and len(self.user) >= FEWEST_MIXED) or (not self.is_number and len(self.user) >= FEWEST_ANY)

    @property
    def numbers(self) -> dict[int, str]:
        """All numbers that are looked for, with what each is."""
        own = self.further if self.number is None else {self.number, *self.further}
        return dict.fromkeys(self.examples, EXAMPLE) | dict.fromkeys(own, NUMBER)

    def with_pseudonyms(self, pseudonyms: Pseudonyms, items: Iterable[str]) -> Targets:
        """The same and the pseudonyms under a key, those of the interactions with every one of `items` among them.

        >>> len(Targets.of("anna").with_pseudonyms(Pseudonyms(bytes(32)), ["a", "b"]).pseudonyms)
        3
        """
        named = {pseudonyms.of_interaction(user, item) for user in self.users for item in (self.items or items)}
        whole = () if self.items else map(pseudonyms.of_user, self.users)
        return replace(self, pseudonyms=frozenset({*named, *whole}))

    def with_examples(self, found: Iterable[int]) -> Targets:
        """The same and further numbers of rows; those that are too short to tell from others are left out."""
        return replace(self, examples=self.examples | {number for number in found if number >= 10 ** (FEWEST_DIGITS - 1)})


def read_example_ids(text: str) -> frozenset[int]:
    """The numbers in a file of one a line; blank lines are passed over.

    Raises:
        BadInput: A line is no number of 10 to 19 digits.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [place for place, line in enumerate(lines, 1) if not (line.isascii() and line.isdigit() and FEWEST_DIGITS <= len(line) <= 19)]
    if wrong:
        raise BadInput(
            f"{len(wrong):,} of {len(lines):,} example ids are no numbers of {FEWEST_DIGITS} to 19 digits",
            facts={"first": f"line {wrong[0]:,}"},
            hint="write one id a line, such as the column `interaction_id` holds",
        )
    return frozenset(map(int, lines))
