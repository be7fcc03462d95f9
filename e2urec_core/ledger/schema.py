"""The ledger's tables as statements name them; the migrations beside this file create them, and a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, MetaData, String, Table, Text

# The last file of `migrations/`.
NEWEST = "0004"
# Not Alembic's own name: a database may hold other programs' tables.
VERSION_TABLE = "ledger_version"
# What the first event follows.
GENESIS = "0" * 64
# The registered model whose champions the line tells.
MODEL = "e2urec"
# The lock of whoever carries requests out.
NIGHT = "night"

tables = MetaData()

events = Table(
    "events",
    tables,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("event", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("facts", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
)

heads = Table(
    "heads",
    tables,
    Column("name", String(64), primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

fingerprints = Table(
    "fingerprints",
    tables,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
)

releases = Table(
    "releases",
    tables,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("bundle", String(64), nullable=False, unique=True),
    Column("model", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("method", String(64), nullable=False),
    Column("run", String(128), nullable=False),
    Column("base", String(64), ForeignKey("releases.bundle")),
    Column("verdict", Text, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("judged_against", String(64), nullable=False),
    Column("registry_version", Integer, unique=True),
    Column("made_at", String(32), nullable=False),
    Column("registered_at", String(32)),
)

forgotten = Table(
    "forgotten",
    tables,
    Column("release", String(64), ForeignKey("releases.bundle"), primary_key=True),
    Column("subject", String(20), primary_key=True),
    Column("request", String(64), nullable=False),
)

line = Table(
    "line",
    tables,
    Column("name", String(64), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("champion", String(64), ForeignKey("releases.bundle")),
    Column("previous", String(64), ForeignKey("releases.bundle")),
)

promotions = Table(
    "promotions",
    tables,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("release", String(64), ForeignKey("releases.bundle"), nullable=False),
    Column("from_release", String(64), ForeignKey("releases.bundle")),
    Column("kind", String(16), nullable=False),
    Column("at", String(32), nullable=False),
    Column("run", String(128), nullable=False),
)

requests = Table(
    "requests",
    tables,
    Column("id", String(18), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("subject", String(20), nullable=False, unique=True),
    Column("scope", String(16), nullable=False),
    Column("reason", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("commitment", String(64), nullable=False),
    Column("requested_at", String(32), nullable=False),
    Column("received_at", String(32), nullable=False),
    Column("covers_until", String(32), nullable=False),
    Column("due_at", String(32), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("held_from", String(16)),
    Column("approved", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("epoch", Integer),
    Column("run", String(128)),
    Column("model", String(64)),
    Column("release", String(64)),
    Column("receipt", String(64)),
    Column("changed_at", String(32), nullable=False),
    # Personal, and gone once the request is purged or closed; the history never holds them.
    Column("user_id", Text, index=True),
    Column("note", Text),
    Column("nonce", String(64)),
)

request_items = Table(
    "request_items",
    tables,
    Column("request", String(18), ForeignKey("requests.id"), primary_key=True),
    Column("item_id", Text, primary_key=True),
)

request_keys = Table(
    "request_keys",
    tables,
    Column("key", String(64), primary_key=True),
    Column("request", String(18), ForeignKey("requests.id"), nullable=False, index=True),
    Column("content", String(64)),
)

runs_lock = Table(
    "runs_lock",
    tables,
    Column("name", String(64), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("holder", String(128)),
    Column("taken_at", String(32)),
)

suppressions = Table(
    "suppressions",
    tables,
    Column("user_mark", String(64), primary_key=True),
    # Empty where everything of the user is meant.
    Column("item_mark", String(64), primary_key=True),
    Column("until_s", BigInteger, nullable=False),
)

# Whose the subjects are that `forgotten` has and no request; rows go when their people are purged.
subject_marks = Table(
    "subject_marks",
    tables,
    Column("mark", String(20), primary_key=True),
    Column("user_mark", String(20), nullable=False, index=True),
    Column("subject", String(20), nullable=False, unique=True),
)
