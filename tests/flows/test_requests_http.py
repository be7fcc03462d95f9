"""`e2urec requests serve`: what it takes, what it answers and refuses, and that it writes nobody down."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from e2urec_console import COMMAND, clean_environment
from fastapi.testclient import TestClient

from e2urec_core.errors import BadSetting, StorageFailed
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.requests import Requests
from flows.requests_serving import MOST_BYTES, build, is_loopback, read_token

TOKEN = "0123456789abcdef" * 2
ASKED = {"user_id": "canary-user", "requested_at": "2026-01-01T00:00:00Z", "note": "canary-note"}


@pytest.fixture
def requests(quick_path: Path) -> Requests:
    return Requests(open_ledger(quick_path / "requests.db"))


@pytest.fixture
def client(requests: Requests) -> TestClient:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return TestClient(build(requests, TOKEN), headers=headers, raise_server_exceptions=False)


def test_a_request_is_taken_in_looked_at_and_cancelled(client: TestClient, requests: Requests) -> None:
    posted = client.post("/requests", json=ASKED)
    assert posted.status_code == 202
    (record,) = requests.requests()
    assert (record.state, record.source, posted.json()["nonce"]) == ("received", "http", requests.identity(record.id).nonce)
    looked = client.get(f"/requests/{record.id}")
    assert looked.json() | {"nonce": posted.json()["nonce"]} == posted.json()
    assert "canary" not in posted.text + looked.text
    assert client.delete(f"/requests/{record.id}").json()["state"] == "cancelled"
    assert client.delete(f"/requests/{record.id}").status_code == 200


def test_a_key_gives_the_first_answer_and_refuses_another_content(client: TestClient, requests: Requests) -> None:
    key = {"Idempotency-Key": "canary-key"}
    first = client.post("/requests", json=ASKED, headers=key)
    assert client.post("/requests", json=ASKED, headers=key).json() == first.json()
    other = client.post("/requests", json=ASKED | {"user_id": "canary-other"}, headers=key)
    assert other.status_code == 409
    assert set(other.json()) == {"error", "hint"}
    assert "canary" not in other.text
    assert len(requests.requests()) == 1


def test_what_a_run_has_claimed_is_not_cancelled(client: TestClient, requests: Requests) -> None:
    name = client.post("/requests", json=ASKED).json()["id"]
    requests.verify_person(name)
    requests.claim("night", num_users=9)
    refused = client.delete(f"/requests/{name}")
    assert (refused.status_code, requests.request(name).state) == (409, "claimed")


@pytest.mark.parametrize("header", [None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"])
def test_without_the_token_nothing_is_told_and_nothing_read(requests: Requests, header: str | None) -> None:
    client = TestClient(build(requests, TOKEN), headers={} if header is None else {"Authorization": header.encode("latin-1")})
    answers = [
        client.post("/requests", json=ASKED),
        client.post("/requests", content=b"x" * (MOST_BYTES + 1)),
        client.get("/requests/r-0123456789abcdef"),
        client.delete("/requests/r-0123456789abcdef"),
        client.get("/nowhere"),
    ]
    assert [(answer.status_code, answer.text) for answer in answers] == [(401, answers[0].text)] * 5
    assert requests.requests() == []
    assert client.get("/health").json() == {"status": "ok"}


def test_an_unknown_name_and_one_that_is_none_look_the_same(client: TestClient) -> None:
    names = ("r-0123456789abcdef", "r-1", "canary", "%00", "..%2f", "r-0123456789ABCDEF")
    answers = [call(f"/requests/{name}") for name in names[:4] for call in (client.get, client.delete)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    assert "canary" not in answers[0].text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"canary",
        b"[]",
        b"{}",
        b'{"user_id": 7}',
        b'{"user_id": "canary", "canary": 1}',
        b'{"user_id": "canary", "items": "canary"}',
        b'{"user_id": "canary", "reason": "canary"}',
        b'{"user_id": "canary\\u0000"}',
        b'{"user_id": "canary\\ud800"}',
        b'{"user_id": NaN}',
        b'{"user_id": "canary", "requested_at": "2099-01-01T00:00:00Z"}',
        b'{"user_id": ' + b"9" * 10_000 + b"}",
        b'{"user_id": ' + b"[" * 10_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_a_malformed_document_is_refused_without_being_repeated(client: TestClient, requests: Requests, body: bytes) -> None:
    answer = client.post("/requests", content=body)
    assert (answer.status_code, set(answer.json())) == (422, {"error", "hint"})
    assert "canary" not in answer.text
    assert requests.requests() == []


def test_a_document_that_is_too_long_is_refused_before_it_is_read(client: TestClient) -> None:
    assert client.post("/requests", content=b" " * MOST_BYTES).status_code == 422
    assert client.post("/requests", content=b" " * (MOST_BYTES + 1)).status_code == 413
    assert client.post("/requests", content=(b" " * 1024 for _ in range(100))).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/docs", 404), ("GET", "/openapi.json", 404), ("GET", "/redoc", 404), ("GET", "/requests", 405), ("PUT", "/requests/x", 405)],
)
def test_there_are_no_other_pages(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, headers={"Origin": "https://example.org"})
    assert (answer.status_code, set(answer.json())) == (status, {"error", "hint"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_failure_of_the_ledger_or_of_ours_says_nothing_of_what_came_in(
    requests: Requests, client: TestClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise StorageFailed("the ledger cannot be used: disk full", hint="free some space")

    def wrong(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(requests, "check", full)
    assert client.get("/health").status_code == 503
    monkeypatch.setattr(requests, "add", wrong)
    failed = client.post("/requests", json=ASKED)
    assert failed.status_code == 500
    said = capfd.readouterr()
    assert "canary" not in failed.text + said.out + said.err
    assert "a request failed: RuntimeError" in said.err


def test_a_token_is_long_and_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    monkeypatch.delenv("E2UREC_REQUESTS_TOKEN", raising=False)
    assert read_token(file) == TOKEN
    file.chmod(0o640)
    with pytest.raises(BadSetting, match="its mode is 640, not 600"):
        read_token(file)
    for missing in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(BadSetting, match="token"):
            read_token(missing)
    monkeypatch.setenv("E2UREC_REQUESTS_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    monkeypatch.setenv("E2UREC_REQUESTS_TOKEN", "secret-word")
    with pytest.raises(BadSetting, match="has 11 characters") as refused:
        read_token(None)
    assert "secret-word" not in str(refused.value)


def test_only_this_machine_reaches_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org")] == [False] * 4


class Server:
    """The command in a process of its own, on a free port of loopback."""

    def __init__(self, workspace: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [COMMAND, "requests", "serve", "--port", "0", "--workspace", workspace, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(E2UREC_REQUESTS_TOKEN=TOKEN),
        )
        assert self.process.stdout
        self.said = ""
        while (found := re.search(r"listening on (http://\S+)", self.said)) is None:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.client = httpx.Client(base_url=found[1], headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def end(self, number: int) -> str:
        """End it, and give all that it has said."""
        self.client.close()
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return self.said + out


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def test_the_server_takes_in_from_many_at_once_survives_a_kill_and_writes_nobody_down(workspace: Path) -> None:
    server, names = Server(workspace, "--requests.trust-http", "true"), []

    def post(number: int) -> None:
        names.append(server.client.post("/requests", json=ASKED | {"user_id": f"canary-{number % 4}"}).json()["id"])

    threads = [threading.Thread(target=post, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.client.get("/requests/canary").status_code == 404
    assert server.client.post("/requests", content=b"canary").status_code == 422
    assert server.client.get("/health", headers={"Authorization": ""}).json() == {"status": "ok"}
    said = server.end(signal.SIGKILL)
    requests = Requests(open_ledger(workspace / "requests.db"))
    assert (len(names), len(set(names))) == (12, 4)
    assert {each.id for each in requests.requests()} == set(names)
    assert {each.state for each in requests.requests()} == {"queued"}
    requests.verify()
    assert "canary" not in said
    assert "warning" not in said
    assert not [path for path in workspace.rglob("*") if "canary" in path.name]


def test_listening_beyond_this_machine_is_warned_of_and_a_taken_port_refused(workspace: Path) -> None:
    server = Server(workspace, "--host", "0.0.0.0")
    port = server.client.base_url.port
    taken = subprocess.run(
        [COMMAND, "requests", "serve", "--port", str(port), "--workspace", workspace],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(E2UREC_REQUESTS_TOKEN=TOKEN),
    )
    assert taken.returncode == 2
    assert f"--port {port}` cannot be listened on" in taken.stderr
    said = server.end(signal.SIGTERM)
    assert "warning: 0.0.0.0 can be reached by others" in said
    assert "Traceback" not in said
    assert server.process.returncode == -signal.SIGTERM
