"""Tells by the name of a column or key whether a value there is a user, an item, or neither."""

from __future__ import annotations

import re
from functools import cache

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PEOPLE = {
    "user",
    "users",
    "userid",
    "userids",
    "uid",
    "uids",
    "subject",
    "subjects",
    "person",
    "people",
    "customer",
    "customers",
    "member",
}
_COUNTS = {"num", "number", "count", "counts", "total", "share", "per", "max", "min", "most", "least", "limit", "rows", "weight", "n"}
_THINGS = {"item", "items", "movie", "movies", "book", "books", "film", "title", "titles", "product", "track", "tracks"}
_VOCABULARY = {"vocab", "vocabulary", "merges", "token", "tokens"}
# Names that say nothing alone, as the `id` in `users.id`.
_BARE = {"id", "ids", "name", "key", "value", "values"}


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters.

    >>> words_of("forgetUsers.user_id")
    ['forget', 'users', 'user', 'id']
    """
    return [word.lower() for word in _WORDS.findall(name)]


@cache
def kind_of(field: str) -> str:
    """`user`, `users`, `item`, `vocabulary`, or nothing: what a field, a path with points in it, holds by its name.

    >>> kind_of("request.user_id"), kind_of("forget.users"), kind_of("num_users"), kind_of("movie.id")
    ('user', 'users', '', 'item')
    """
    if set(words_of(field)) & _VOCABULARY:
        return "vocabulary"
    for part in reversed(field.split(".")):
        words = set(words_of(part))
        if words & _COUNTS:
            return ""
        if words & _PEOPLE:
            return "users" if any(word in _PEOPLE and word.endswith("s") for word in words) and not words & {"id"} else "user"
        if words & _THINGS:
            return "item"
        if words - _BARE:
            return ""
    return ""
