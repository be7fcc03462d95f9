"""The commands `e2urec data`: look at a source before anything is trained on it.

Both read the source through the gate of the stage `ingest`, suppression list included, into a private folder that is dropped at the end; no
run is made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2urec_core.errors import BadSetting, StorageFailed
from flows.flags import FLAGS, AsJson, Debug, StoreAt, Workspace, show_knobs

if TYPE_CHECKING:
    from e2urec_core.data_page import Findings
    from flows.runs import Reading

PAGE, DOCS = "contract.html", "data-docs"
DATASET = Annotated[str | None, typer.Argument(metavar="DATASET", help="Dataset, such as `sample` or `ml-1m`.")]
SHOW_HELP = Annotated[bool, typer.Option("--help", help="Show this message and the settings of the dataset.")]

app = typer.Typer(help="Look at a source of interactions: check it, list its users.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    """Look at a source of interactions: check it, list its users."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(add_help_option=False)
def check(
    dataset: DATASET = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the page; default: data-check/DATASET in the workspace.")] = None,
    data_docs: Annotated[bool, typer.Option("--data-docs", help="Write Great Expectations' own pages too; they need a network.")] = False,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
    show_help: SHOW_HELP = False,
) -> None:
    """Hold a source against its data contract: e2urec data check DATASET [--section.field VALUE ...]."""
    usage = "data check DATASET [--out FOLDER] [--data-docs] [--workspace DIR] [--json] [--debug] [--section.field VALUE ...]"
    if show_help:
        _show_help(usage, check.__doc__, dataset)
        return
    reading = _reading(dataset, "check")
    from e2urec_core.data_page import check_source, render
    from e2urec_core.ledger.suppressions import suppressed_in
    from e2urec_core.plugins import word

    with _place(workspace) as (root, place):
        findings, refusal = check_source(reading.dataset, reading.ingest, place, suppressed_in(root))
        folder = (out or root / "data-check" / word(reading.dataset.kind)).expanduser().absolute()
        written = _write(folder, render(findings), place, data_docs=data_docs)
    _show(findings, written, as_json=as_json)
    if refusal is not None:
        sys.stdout.flush()
        raise refusal


@app.command(add_help_option=False)
def users(
    dataset: DATASET = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
    show_help: SHOW_HELP = False,
) -> None:
    """List the users of a source with their rows: e2urec data users DATASET [--section.field VALUE ...]."""
    if show_help:
        _show_help("data users DATASET [--workspace DIR] [--json] [--debug] [--section.field VALUE ...]", users.__doc__, dataset)
        return
    reading = _reading(dataset, "users")
    from e2urec_core.data_page import read_source, rows_of_users
    from e2urec_core.ledger.suppressions import suppressed_in
    from e2urec_core.plugins import word

    with _place(workspace) as (root, place):
        read_source(reading.dataset, reading.ingest, place, suppressed_in(root))
        table = rows_of_users(place)
    names, rows = table.column("user_id").to_pylist(), table.column("rows").to_pylist()
    if as_json:
        listed = [{"user_id": name, "rows": count} for name, count in zip(names, rows, strict=True)]
        _say(json.dumps({"dataset": word(reading.dataset.kind), "users": listed}))
        return
    # A name with a tab or a line break is quoted, so that a line stays a user.
    lines = (f"{name if name.isprintable() else json.dumps(name)}\t{count}" for name, count in zip(names, rows, strict=True))
    _say("\n".join(["user_id\trows", *lines]))


def _reading(dataset: str | None, command: str) -> Reading:
    from flows.runs import build_reading

    if dataset is None:
        raise BadSetting("1 of 1 words is missing: DATASET", hint=f"e2urec data {command} sample")
    return build_reading(dataset, FLAGS)


@contextmanager
def _place(workspace: Path | None) -> Iterator[tuple[Path, Path]]:
    """The workspace, and a private empty folder in it that is dropped at the end, also when the command is terminated."""
    import warnings

    from tasks._journal import place_of
    from tasks._stores import store_of

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    root = place_of(workspace)
    try:
        with store_of(root).workplace() as place:
            yield root, place
    except OSError as error:
        raise StorageFailed(
            f"a file could not be read or written: {error.strerror or error}", hint="check the disk and the folder's rights"
        ) from error


def _write(folder: Path, page: str, place: Path, *, data_docs: bool) -> dict[str, str]:
    """Write the page, the quarantine and, where asked, the pages of Great Expectations; returns where they lie."""
    from e2urec_core.data.places import QUARANTINE
    from e2urec_core.data_page import write_data_docs
    from e2urec_core.disk import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PAGE, page)
    # It names users, so it is its owner's alone.
    aside = folder / QUARANTINE
    aside.touch(mode=0o600)
    aside.chmod(0o600)
    shutil.copyfile(place / QUARANTINE, aside)
    written = {"page": str(folder / PAGE), "quarantine": str(aside)}
    if data_docs:
        written["data_docs"] = str(write_data_docs(place, folder / DOCS))
    return written


def _show(findings: Findings, written: dict[str, str], *, as_json: bool) -> None:
    from e2urec_core.data_page import document, text

    if as_json:
        _say(json.dumps({**document(findings), **written}, indent=2, allow_nan=False))
        return
    _say(text(findings))
    print(f"page:       {written['page']}")
    aside = sum(findings.counts.quarantined.values())
    print(f"quarantine: {written['quarantine']} ({f'{aside:,} rows as they stood: it names users' if aside else 'empty'})")
    if "data_docs" in written:
        print(f"data docs:  {written['data_docs']} (pulls its styles from the network when it is opened)")


def _show_help(usage: str, sentence: str | None, dataset: str | None) -> None:
    from e2urec_core.datasets.base import Dataset
    from e2urec_core.plugins import kinds, load, word
    from flows.knobs import knobs
    from flows.runs import Reading, build_reading

    print(f"usage: e2urec {usage}\n\n{(sentence or '').split(': e2urec', maxsplit=1)[0]}.\n")
    print(f"datasets   {', '.join(map(word, kinds(Dataset.package)))}")
    if dataset is None:
        print("\nname the dataset before --help to see its settings")
        return
    shown = knobs({"dataset": load(Dataset.package, dataset)}, build_reading(dataset, {}).canonical(), Reading)
    show_knobs(knob for knob in shown if knob[0] != "--ingest.onto")


def _say(text: str) -> None:
    """Print to stdout; a reader such as `head` may go away early."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it closes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
