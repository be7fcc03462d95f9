"""The commands `e2urec requests`: take in what people ask to have deleted, look how far it is, decide what needs a person.

Requests are named by their own random names; who they are about is shown by `show --identity` alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2urec_core.ledger.request_records import MOVES, Identity, NewRequest, RequestRecord, RequestRule
from e2urec_core.settings import Settings
from flows.flags import FLAGS, AsJson, Debug, StoreAt, Workspace, told_or_read
from tasks._progress import say

if TYPE_CHECKING:
    from e2urec_core.ledger.records import Event
    from e2urec_core.ledger.requests import Requests

REQUEST = Annotated[str, typer.Argument(metavar="REQUEST", help="Name of the request, such as `r-0123456789abcdef`.")]

app = typer.Typer(help="Deletion requests: take in, list, show, verify, cancel, hold, approve, serve.", rich_markup_mode=None)


class Asking(Settings):
    """What flags such as `--requests.due-days` set."""

    requests: RequestRule = RequestRule()
    """How requests are treated."""


@app.callback(invoke_without_command=True)
def requests(context: typer.Context) -> None:
    """Deletion requests: take in, list, show, verify, cancel, hold, approve, serve."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def add(
    user: Annotated[
        str, typer.Option("--user", help="The data's own name of the user; `-` reads it from stdin, past the shell's history.")
    ],
    item: Annotated[list[str] | None, typer.Option("--item", help="Forget this one interaction; may be repeated. Default: all.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="privacy: the user asks; pollution: the data is bad.")] = "privacy",
    note: Annotated[str, typer.Option("--note", help="At most 500 characters; dropped with the user's name.")] = "",
    requested_at: Annotated[
        str | None, typer.Option("--requested-at", help="When it was asked for, such as 2026-01-31T12:00:00Z; default: now.")
    ] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take in one request. The same user again, while it waits, is the same request."""
    named = told_or_read(user)
    new = NewRequest.read({"user_id": named, "items": item or (), "reason": reason, "note": note, "requested_at": requested_at})
    _tell([_open(workspace).add(new, "command")], as_json=as_json)


@app.command("import")
def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV, NDJSON or Parquet, with the columns of the contract.")],
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take in the requests of a file, all or none; a request that was taken in before is not taken in again."""
    from e2urec_core.data.request_files import read_requests

    asked = _open(workspace)
    new, names = read_requests(file)
    records = asked.add_all(new, "import", names)
    if as_json:
        _print([record.canonical() for record in records])
        return
    distinct = len({record.id for record in records})
    print(f"{len(records):,} rows are {distinct:,} requests; `e2urec requests list` shows them")


@app.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option("--state", help=f"One of {', '.join(MOVES)}.")] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List requests in the order of arrival: state, when they are due, how many nights have failed."""
    from e2urec_core.errors import BadSetting

    if state is not None and state not in MOVES:
        raise BadSetting(f"`--state {state}` is none of the {len(MOVES)} states", hint=f"states: {', '.join(MOVES)}")
    records = [record for record in _open(workspace).requests() if state in (None, record.state)]
    if as_json:
        _print([record.canonical() for record in records])
        return
    if not records:
        print("no requests" if state is None else f"no requests are {state}")
        return
    from flows.shown import print_table

    heads = ["request", "state", "scope", "reason", "source", "received, UTC", "due, UTC", "failed", "subject"]
    print_table([heads, *(_row(record) for record in records)])


@app.command()
def show(
    request: REQUEST,
    identity: Annotated[bool, typer.Option("--identity", help="Show who it is about, too, and the nonce that opens its receipt.")] = False,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show one request with its history; who it is about only with `--identity`."""
    asked = _open(workspace)
    record, history = asked.request(request), asked.history(request)
    person = asked.identity(request) if identity else None
    if as_json:
        shown = {**record.canonical(), "history": [{"at": event.at, "event": event.event, **json.loads(event.facts)} for event in history]}
        _print(shown | ({"identity": person.canonical()} if person else {}))
        return
    for name, value in record.canonical().items():
        if value is not None:
            print(f"{name.replace('_', ' '):<13} {value}")
    for name, value in _person(person).items():
        print(f"{name:<13} {value}")
    for event in history:
        print(_told(event))


@app.command()
def verify(request: REQUEST, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Note that it is the person themselves who asks: a request that came by HTTP is queued."""
    _tell([_open(workspace).verify_person(request)], as_json=as_json)


@app.command()
def cancel(request: REQUEST, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Withdraw a request that no run has claimed yet; who it was about is erased."""
    _tell([_open(workspace).cancel(request)], as_json=as_json)


@app.command()
def reject(request: REQUEST, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Refuse a request that no run has claimed yet; who it was about is erased."""
    _tell([_open(workspace).reject(request)], as_json=as_json)


@app.command()
def hold(request: REQUEST, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Put a request that no run has claimed yet on legal hold: it is not carried out until it is released."""
    _tell([_open(workspace).hold(request)], as_json=as_json)


@app.command()
def release(request: REQUEST, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """End a legal hold: the request is what it was before."""
    _tell([_open(workspace).release(request)], as_json=as_json)


@app.command()
def approve(request: REQUEST, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Queue a request that waits for a person: one of too many in a night, or one whose nights have failed."""
    _tell([_open(workspace).approve(request)], as_json=as_json)


@app.command()
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8470,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File of mode 600 with the token; default: $E2UREC_REQUESTS_TOKEN.")
    ] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    debug: Debug = False,
) -> None:
    """Take requests in by HTTP: POST /requests, GET and DELETE /requests/NAME, GET /health."""
    from flows.requests_serving import is_loopback, read_token
    from flows.requests_serving import serve as serve_http

    token = read_token(token_file)
    if not is_loopback(host):
        say(f"warning: {host} can be reached by others, and HTTP sends users' names in the clear; put TLS in front of it")
    serve_http(_open(workspace), token, host, port)


def _open(workspace: Path | None) -> Requests:
    rule = RequestRule()
    if FLAGS:
        from flows.runs import filled

        rule = filled(Asking, {}, {}, FLAGS).requests
    from e2urec_core.ledger import ledger_place, open_ledger
    from e2urec_core.ledger.requests import Requests
    from tasks._journal import place_of

    return Requests(open_ledger(ledger_place(place_of(workspace))), rule)


def _tell(records: list[RequestRecord], *, as_json: bool) -> None:
    for record in records:
        if as_json:
            _print(record.canonical())
        else:
            print(f"{record.id}  {record.state}  due {record.due_at:%Y-%m-%d}  subject {record.subject}")


def _row(record: RequestRecord) -> list[str]:
    times = [f"{moment:%Y-%m-%d %H:%M}" for moment in (record.received_at, record.due_at)]
    return [record.id, record.state, record.scope, record.reason, record.source, *times, str(record.attempts), record.subject]


def _person(person: Identity | None) -> dict[str, str]:
    if person is None:
        return {}
    told = {"user": person.user_id, "items": ", ".join(person.items), "note": person.note, "nonce": person.nonce}
    return {name: json.dumps(value) if not value.isprintable() else value for name, value in told.items() if value} or {"user": "erased"}


def _told(event: Event) -> str:
    facts: dict[str, Any] = json.loads(event.facts)
    more = [
        f"{name} {facts[name]}" for name in ("run", "epoch", "attempts", "covers_until", "model", "release", "receipt") if facts.get(name)
    ]
    return "  ".join([event.at[:19], event.event, *more])


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
