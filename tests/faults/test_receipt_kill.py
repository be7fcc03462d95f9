"""The chain of receipts under kills: at every failpoint, at every call to the disk, and again during recovery; rows 1, 2 and 86.

What was killed left a whole file or none, and the same calls again end in the same chain as undisturbed ones.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import child, ended
from receipted import facts, no_data

from e2urec_core.failpoints import VARIABLE
from e2urec_core.ledger import open_ledger
from e2urec_core.receipts import keys
from e2urec_core.receipts.chain import write_receipt
from e2urec_core.receipts.folder import links_of, public_keys_beside
from e2urec_core.receipts.keys import open_signer, rotate_key
from e2urec_core.receipts.verify import verify
from e2urec_core.receipts.witness import LedgerWitness
from tests.by_default import few

CORE = Path(__file__).parents[2] / "e2urec_core"
# How often the story passes each; the ledger keeps a fingerprint, and is told of four links.
PASSED = {
    "receipt.write": 4,
    "receipt.written": 4,
    "receipt.witnessed": 4,
    "receipt-key.replace": 1,
    "receipt-key.replaced": 1,
}
SHARED = {"key.rename": 2, "key.renamed": 2, "ledger.commit": 8}


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (keys.VARIABLE, keys.NEXT_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with an empty ledger."""
    workspace = tmp_path_factory.mktemp("empty") / "workspace"
    open_ledger(workspace / "requests.db")
    return workspace


@pytest.fixture
def workspaces(empty: Path, quick_path: Path) -> Iterator[Path]:
    """Copies of it."""

    def fresh() -> Iterator[Path]:
        for number in itertools.count():
            yield Path(shutil.copytree(empty, quick_path / str(number)))

    return fresh()


def story(workspace: Path) -> None:
    """Two receipts, a new key, another receipt; every step may be repeated."""
    ledger = open_ledger(workspace / "requests.db")
    witness = LedgerWitness(ledger)
    for each in (facts(1), no_data(2)):
        write_receipt(workspace, each, open_signer(workspace, ledger), witness)
    if not list((workspace / "receipts").glob("*-key-*")):
        rotate_key(workspace, open_signer(workspace, ledger), witness)
    write_receipt(workspace, facts(3), open_signer(workspace, ledger), witness)


def assert_legal(workspace: Path) -> None:
    """Whatever is there verifies, and the ledger knows no link that is not there."""
    folder, head = workspace / "receipts", LedgerWitness(open_ledger(workspace / "requests.db")).head()
    links = links_of(folder)
    assert head.number in (len(links), len(links) - 1)
    if links:
        assert verify(folder, public_keys_beside(folder), head=head).links == len(links)


def assert_finished(workspace: Path) -> None:
    story(workspace)
    ledger = open_ledger(workspace / "requests.db")
    first = [key for key in public_keys_beside(workspace / "receipts") if key.fingerprint == ledger.fingerprint("receipts")]
    head = LedgerWitness(ledger).head()
    told = verify(workspace / "receipts", first, head=head)
    assert (told.links, told.document.number, head.number) == (4, 4, 4)
    assert [path.name[7:10] for path in links_of(workspace / "receipts").values()] == ["rec", "rec", "key", "rec"]
    assert sorted(path.name for path in (workspace / "keys").iterdir()) == ["receipts.key", "receipts.key.lock", "receipts.key.next.lock"]
    # Nothing half-written is left, and nothing is beside what belongs there.
    assert not [path for path in (workspace / "receipts").rglob(".*") if path.name != ".lock"]
    assert len(public_keys_beside(workspace / "receipts")) == 2


def test_every_failpoint_of_the_receipts_is_one_of_these() -> None:
    sources = "".join(path.read_text() for path in sorted((CORE / "receipts").glob("*.py")))
    assert re.findall(r'failpoint\("([a-z.-]+)"\)', sources) == list(PASSED)


# Every point of the receipts by a kill; one of them by an error, which is the easier end.
@pytest.mark.parametrize(
    ("name", "action"),
    few(
        {*((name, "kill") for name in PASSED), ("key.rename", "kill"), ("receipt.written", "raise")},
        itertools.product([*PASSED, *SHARED], ["kill", "raise"]),
    ),
)
def test_a_process_that_ends_at_any_failpoint_leaves_a_legal_chain_on_which_the_same_calls_finish(
    workspaces: Iterator[Path], name: str, action: str
) -> None:
    for nth in itertools.count(1):
        workspace = next(workspaces)
        status = ended(child(lambda workspace=workspace: story(workspace), **{VARIABLE: f"{name}:{nth}:{action}"}))
        assert_legal(workspace)
        assert_finished(workspace)
        if status == 0:
            break
        assert status == {"kill": -signal.SIGKILL, "raise": 1}[action]
    if name in PASSED:
        assert nth - 1 == PASSED[name]
    else:
        assert nth > 2


@pytest.mark.parametrize(("first", "second"), list(itertools.product(PASSED, ("receipt.written", "receipt-key.replace"))))
def test_a_process_that_is_killed_while_it_recovers_leaves_a_legal_chain_too(workspaces: Iterator[Path], first: str, second: str) -> None:
    workspace = next(workspaces)
    for name in (first, second):
        ended(child(lambda: story(workspace), **{VARIABLE: f"{name}:{PASSED[name]}:kill"}))
        assert_legal(workspace)
    assert_finished(workspace)


def killed_at_call(workspace: Path, nth: int) -> None:
    """Run the story until the `nth` call that moves a file or waits for the disk."""
    numbers = itertools.count(1)

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object, **named: object) -> object:
            if next(numbers) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counting

    for name in ("replace", "rename", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    story(workspace)


def test_a_process_killed_at_any_call_to_the_disk_leaves_a_legal_chain(workspaces: Iterator[Path]) -> None:
    for nth in itertools.count(1):
        workspace = next(workspaces)
        status = ended(child(lambda workspace=workspace, nth=nth: killed_at_call(workspace, nth)))
        assert_legal(workspace)
        assert_finished(workspace)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    # Four links and four keys, each synced, moved, and its folder synced, and one key moved into the other's place.
    assert nth - 1 == 4 * 3 + 4 * 3 + 2


def test_a_paused_writer_that_wakes_after_a_rotation_writes_by_the_old_key_or_not_at_all(workspaces: Iterator[Path]) -> None:
    workspace = next(workspaces)
    ledger = open_ledger(workspace / "requests.db")
    signer, witness = open_signer(workspace, ledger), LedgerWitness(ledger)
    rotate_key(workspace, signer, witness)
    assert ended(child(lambda: write_receipt(workspace, facts(1), signer, witness) and None)) == 1
    assert_legal(workspace)
    assert len(links_of(workspace / "receipts")) == 1
