"""The commands `e2urec receipt`: in the hands of somebody who has a file and a key, and in a workspace."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2urec_console import Answer, command
from receipted import CANARY_ITEM, CANARY_USER, NONCE, Memory, chain, facts

from e2urec_core.ledger import open_ledger
from e2urec_core.receipts.chain import write_receipt
from e2urec_core.receipts.envelope import Signer
from e2urec_core.receipts.folder import public_keys_beside
from e2urec_core.receipts.keys import NEXT_VARIABLE, VARIABLE, open_signer
from e2urec_core.receipts.witness import LedgerWitness

SIGNER = Signer(bytes(32))
HEAVY = ("torch", "polars", "pandas", "mlflow", "prefect", "sqlalchemy", "alembic", "transformers", "great_expectations")
Run = Callable[..., Answer]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `e2urec receipt ...` here, where no network is to be had."""
    from flows.cli import main

    for name in (VARIABLE, NEXT_VARIABLE, "E2UREC_LEDGER", "E2UREC_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("verifying asks no network")

    monkeypatch.setattr(socket, "socket", refused)

    def called(*words: str | Path, stdin: str = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["e2urec", "receipt", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return called


@pytest.fixture
def receipts(tmp_path: Path) -> list[Path]:
    """Three receipts and the public key, as an issuer hands them out."""
    paths = chain(tmp_path, SIGNER, 3)
    (tmp_path / "issuer.pub").write_text(SIGNER.public.text)
    return paths


def test_a_receipt_is_verified_with_its_neighbours_and_a_key(run: Run, receipts: list[Path], tmp_path: Path) -> None:
    answer = run("verify", receipts[1], "--key", tmp_path / "issuer.pub", "--json")
    assert answer.code == 0
    told = answer.json()
    assert {name: told[name] for name in ("verified", "number", "request", "outcome", "key", "links")} == {
        "verified": True,
        "number": 2,
        "request": f"r-{2:016x}",
        "outcome": "no_data",
        "key": SIGNER.public.id,
        "links": 3,
    }
    shutil.copy(receipts[1], tmp_path / "mine.json")
    alone = run("verify", tmp_path / "mine.json", "--key", tmp_path / "issuer.pub")
    assert (alone.code, alone.stdout.splitlines()[0]) == (0, "verified")
    assert "links      1" in alone.stdout


def test_a_key_from_beside_the_receipt_is_used_and_told_of(run: Run, receipts: list[Path], tmp_path: Path) -> None:
    assert run("verify", receipts[0]).stderr.startswith("BadKey: there is no public key to verify with\n")
    (receipts[0].parent / "keys").mkdir()
    (receipts[0].parent / "keys" / "any.pub").write_text(SIGNER.public.text)
    answer = run("verify", receipts[0])
    assert answer.code == 0
    assert "compare its id with the one that the issuer has published" in answer.stderr


def test_an_altered_receipt_a_foreign_key_and_a_file_that_is_none_end_with_2(run: Run, receipts: list[Path], tmp_path: Path) -> None:
    key = tmp_path / "issuer.pub"
    (tmp_path / "foreign.pub").write_text(Signer(bytes([1] * 32)).public.text)
    foreign = run("verify", receipts[0], "--key", tmp_path / "foreign.pub")
    assert (foreign.code, foreign.stdout) == (2, "")
    assert foreign.stderr.startswith(f"BadReceipt: link 1 is signed by the key {SIGNER.public.id}, which is not trusted\n")
    receipts[1].write_bytes(receipts[1].read_bytes().replace(b"eyJh", b"eyJi", 1))
    for path in receipts:
        answer = run("verify", path, "--key", key)
        assert answer.code == 2
        assert answer.stderr.startswith(
            ("BadReceipt: link 2 is not what was signed\n", "BadReceipt: link 3 does not follow the one before it\n")
        )
        assert "hint: " in answer.stderr
    for wrong in (key, tmp_path, tmp_path / "nothing"):
        assert (run("verify", wrong, "--key", key).code, run("show", wrong).code) == (2, 2)
    assert run("verify", receipts[0], "--key", receipts[0]).stderr.startswith("BadKey: a public key is not what")


def test_show_tells_what_a_receipt_says_and_that_nothing_was_verified(run: Run, receipts: list[Path]) -> None:
    answer = run("show", receipts[0])
    assert answer.code == 0
    assert "claims          States the process and the measured gates; it does not claim" in answer.stdout
    assert "nothing was verified" in answer.stderr
    assert run("show", receipts[0], "--json").json()["gates"][0]["value"] == 0.0123456789


def test_the_subject_opens_their_receipt_and_nobody_elses(run: Run, receipts: list[Path]) -> None:
    proof = ("--nonce", NONCE.hex(), "--user", "-", "--item", CANARY_ITEM)
    opened = run("open", receipts[0], *proof, stdin=f"{CANARY_USER}\n")
    assert opened.code == 0
    assert f"is about this user; request r-{1:016x}, forgotten" in opened.stdout
    assert run("open", receipts[0], "--nonce", NONCE.hex(), "--user", CANARY_USER, "--item", CANARY_ITEM, "--json").json()["opened"]
    wrong = run("open", receipts[0], *proof, stdin=f"{CANARY_USER}0\n")
    assert wrong.code == 2
    assert wrong.stderr.startswith("BadReceipt: the nonce, the user and the 1 items do not open the receipt receipt-")
    for answer in (opened, wrong):
        assert not [secret for secret in (CANARY_USER, CANARY_ITEM, NONCE.hex()) if secret in answer.stdout + answer.stderr]
    assert run("open", receipts[0], "--nonce", "7", "--user", "1").stderr.startswith("BadSetting: the nonce has 1 characters")


def test_a_workspace_verifies_its_chain_against_its_ledger(run: Run, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "requests.db")
    signer = open_signer(tmp_path, ledger)
    paths = [write_receipt(tmp_path, facts(number), signer, LedgerWitness(ledger)) for number in (1, 2, 3)]
    there = ("--workspace", tmp_path)
    assert run("verify-all", *there, "--json").json()["links"] == 3
    whole = paths[2].read_bytes()
    paths[2].unlink()
    assert run("verify-all", *there).stderr.startswith("BadReceipt: link 3 is missing: the chain ends at 2, and 3 was seen before\n")
    # Somebody's own chain, with a key of their own beside it.
    shutil.rmtree(tmp_path / "receipts")
    chain(tmp_path, SIGNER, 3, Memory())
    (tmp_path / "receipts" / "keys").mkdir()
    (tmp_path / "receipts" / "keys" / "any.pub").write_text(SIGNER.public.text)
    assert run("verify-all", *there).stderr.startswith("BadReceipt: there are no receipts, or no key that the ledger knows\n")
    assert whole


def test_verifying_an_empty_workspace_makes_nothing(run: Run, tmp_path: Path) -> None:
    answer = run("verify-all", "--workspace", tmp_path / "workspace")
    assert (answer.code, list(tmp_path.iterdir())) == (2, [])


def test_the_key_is_changed_by_command_and_old_receipts_still_verify(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "requests.db")
    first = open_signer(tmp_path, ledger)
    path = write_receipt(tmp_path, facts(1), first, LedgerWitness(ledger))
    told = command("receipt", "rotate-key", "--workspace", tmp_path, "--json").json()
    second = open_signer(tmp_path, ledger)
    assert (told["retired"], told["successor"]) == (first.public.id, second.public.id)
    (tmp_path / "new.pub").write_text(second.public.text)
    assert command("receipt", "verify", path, "--key", tmp_path / "new.pub").code == 0
    assert command("receipt", "verify-all", "--workspace", tmp_path, "--json").json()["links"] == 2
    assert len(public_keys_beside(tmp_path / "receipts")) == 2


def test_help_and_verifying_load_nothing_heavy(receipts: list[Path], tmp_path: Path) -> None:
    key = tmp_path / "issuer.pub"
    script = "import sys; from flows.cli import main; sys.argv[0] = 'e2urec'; main(); print(*sys.modules)"
    for words in (["--help"], ["verify", "--help"], ["verify", receipts[0], "--key", key], ["show", receipts[0]]):
        ended = subprocess.run([sys.executable, "-c", script, "receipt", *words], capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 0, ended.stderr
        loaded = set(ended.stdout.splitlines()[-1].split())
        assert "flows.receipt_commands" in loaded
        assert not loaded & set(HEAVY)


def test_a_third_party_verifies_with_one_file_and_cryptography_alone(receipts: list[Path], tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "verify_receipt.py"
    shutil.copy(script, tmp_path / "verify_receipt.py")
    # Isolated: neither this folder nor an environment variable leads to this project.
    words = [sys.executable, "-I", tmp_path / "verify_receipt.py", tmp_path / "issuer.pub"]
    whole = subprocess.run([*words, *receipts], capture_output=True, text=True, check=False, timeout=60)
    assert whole.returncode == 0, whole.stderr
    assert json.loads("[" + whole.stdout.replace("\n}\n{", "\n},{") + "]")[2]["number"] == 3
    wrong = subprocess.run([*words, receipts[0], receipts[2]], capture_output=True, text=True, check=False, timeout=60)
    assert wrong.returncode != 0
    assert "link 3 does not follow the one before it" in wrong.stderr
    assert "e2urec_core" not in script.read_text()
