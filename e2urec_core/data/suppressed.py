"""Whom the gate keeps out for good, known by keyed marks alone: nobody can read the list, and it still recognises whoever is on it.

A plain hash of a user's number is undone by trying all numbers. Without the key a mark says nothing; with it, a name that comes along
can be asked for, and no name can be told from its mark.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from e2urec_core.artifacts import canonical_json, digest_of
from e2urec_core.data.deletions import Deletions, parted, successor
from e2urec_core.secret_key import KEY_BYTES, fingerprint_of


class Marks:
    """Marks users, and single interactions of theirs, by one key."""

    def __init__(self, key: bytes) -> None:
        """Mark by `key`, 32 bytes.

        >>> Marks(bytes(32)).of_user("7")[:20]
        '58678c6e76f988a878b1'
        """
        assert len(key) == KEY_BYTES
        self._key = key

    def of_user(self, user_id: str) -> str:
        """Mark of a user: HMAC-SHA256 over `user:` and the identifier, 64 hex digits."""
        return self._of(f"user:{user_id}")

    def of_pair(self, user_id: str, item_id: str) -> str:
        """Mark of a user's interactions with an item, 64 hex digits; the same item has another mark for another user."""
        return self._of(f"interaction:{canonical_json([user_id, item_id])}")

    @property
    def fingerprint(self) -> str:
        """See `fingerprint_of`."""
        return fingerprint_of(self._key)

    def _of(self, named: str) -> str:
        return hmac.digest(self._key, named.encode(), "sha256").hex()


@dataclass(frozen=True)
class Suppressed:
    """The suppression list: rows up to a moment are kept out.

    Args:
        users: Of each user's mark the moment, seconds since 1970, UTC.
        pairs: Of each user's mark the marks of interactions with an item, with their moments.
        marks: What the marks were made with; only an empty list goes without.
    """

    users: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    marks: Marks | None = None

    def __post_init__(self) -> None:
        assert self.marks is not None or not self, "marks are compared by their key"

    def __bool__(self) -> bool:
        return bool(self.users or self.pairs)

    @property
    def digest(self) -> str:
        """Digest of the whole list and of its key's fingerprint; the empty text of an empty one."""
        if self.marks is None or not self:
            return ""
        pairs = {user: dict(items) for user, items in self.pairs.items()}
        return digest_of({"users": dict(self.users), "pairs": pairs, "key": self.marks.fingerprint})

    def user_cut_offs(self, users: Sequence[str]) -> dict[int, int]:
        """For the places of `users` who are on the list: the moment up to which their rows are kept out, seconds since 1970, UTC."""
        found = ((place, self._until(user)) for place, user in enumerate(users))
        return {place: until for place, until in found if until is not None}

    def have_pairs(self, names: Iterable[str]) -> bool:
        """Whether single interactions of somebody who has borne all these names are on the list."""
        return bool(self.pairs) and any(self._user(name) in self.pairs for name in names)

    def pair_cut_off(self, names: Iterable[str], item_id: str) -> int | None:
        """The moment up to which interactions with an item, of somebody who has borne all these names, are kept out; None if they are not.

        Args:
            names: Of a user; see `Deletions.lives`.
            item_id: The item.
        """
        found = [self.pairs.get(self._user(name), {}).get(self._pair(name, item_id)) for name in names]
        return max((until for until in found if until is not None), default=None)

    def joined(self, deletions: Deletions, names: Iterable[str]) -> Deletions:
        """The table of deleted users and, of those that bear one of `names`, whoever is on this list.

        Who is in both has been deleted once, at the later moment. Whoever came back as `anna#2` and was suppressed under that name was
        deleted once more.
        """
        if not self.users:
            return deletions
        moments = dict(deletions.moments)
        # A user before whoever came after.
        people = list(dict.fromkeys(each for name in names for each in (parted(name)[0], name)))
        cuts = self.user_cut_offs(people)
        for place, user in enumerate(people):
            first, number = parted(user)
            if first != user and number <= len(moments.get(first, ())) + 1:
                continue
            known = moments.get(user, ())
            if place in cuts:
                known = (*known[:-1], max((cuts[place], *known[-1:])))
            while known and (later := self._until(successor(user, len(known)))) is not None:
                known = (*known, max(later, known[-1]))
            if known:
                moments[user] = known
        return Deletions(moments)

    def mentioned(self, text: str) -> bool:
        """Whether a text is, or holds as a whole word, the name of a user on the list."""
        return any(self._until(word) is not None for word in _words(text))

    def _until(self, user: str) -> int | None:
        return self.users.get(self._user(user)) if self.users else None

    def _user(self, user: str) -> str:
        assert self.marks is not None
        return self.marks.of_user(user)

    def _pair(self, user: str, item: str) -> str:
        assert self.marks is not None
        return self.marks.of_pair(user, item)


def _words(text: str) -> set[str]:
    """What may be a name in a text: the whole, what stands between separators, and runs of letters and digits."""
    pieces = {text.strip(), *re.split(r"[\s,;|:=\"'()\[\]{}]+", text), *re.findall(r"\w+", text)}
    return {piece for each in pieces for piece in (each, re.sub(r"\.0+$", "", each)) if piece}
