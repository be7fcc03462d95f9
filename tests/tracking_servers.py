"""A real MLflow server with artifacts on a store that speaks S3, all on the loopback address, and a way to it that can be made to fail."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTED_WITHIN_S = 120
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def object_store(bucket: str) -> Iterator[dict[str, str]]:
    """A store that speaks S3 and holds an empty bucket; yields the environment in which clients find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    known = {"AWS_ACCESS_KEY_ID": "loopback", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_DEFAULT_REGION": "us-east-1"}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="loopback", aws_secret_access_key="hush")
    client.create_bucket(Bucket=bucket)
    try:
        yield {**known, "MLFLOW_S3_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": LOOPBACK}
    finally:
        server.stop()


@contextmanager
def mlflow_server(folder: Path, *words: str, environment: dict[str, str] | None = None) -> Iterator[str]:
    """A server with its database in `folder`, one worker and no jobs; yields its address. `words` say where artifacts go."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", *words]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        started = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {}), **quiet}, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://{LOOPBACK}:{port}"
    try:
        _wait(f"{address}/health", started, folder / "server.log")
        yield address
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} did not answer within {STARTED_WITHIN_S} s: {log.read_text()[-2000:]}")


class Way:
    """Passes requests on to a server, but for those that it is told to spoil."""

    def __init__(self, target: str) -> None:
        self.target = target.removeprefix("http://")
        self.seen: list[str] = []
        self._faults: list[tuple[str, int, bool]] = []
        self._lock = threading.Lock()

    def spoil(self, path: str, times: int = 1, *, after: bool = False) -> None:
        """Answer 500 to the next `times` requests whose path holds `path`; with `after`, once the server has done what was asked."""
        with self._lock:
            self._faults += [(path, 500, after)] * times

    def mend(self) -> None:
        """Pass everything on again."""
        with self._lock:
            self._faults.clear()

    def fault_for(self, method: str, path: str) -> tuple[str, int, bool] | None:
        with self._lock:
            self.seen.append(f"{method} {path}")
            found = next((fault for fault in self._faults if fault[0] in path), None)
            if found:
                self._faults.remove(found)
            return found


@contextmanager
def way_to(target: str) -> Iterator[tuple[str, Way]]:
    """An address that passes requests on to `target`, and the handle by which it is made to fail."""
    way = Way(target)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def length(self) -> int:
            return int(self.headers.get("Content-Length", 0))

        def chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def serve(self) -> None:
            body = self.chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(self.length())
            fault = way.fault_for(self.command, self.path)
            status, headers, content = 500, [("Content-Type", "text/plain")], b"spoiled"
            if fault is None or fault[2]:
                there = http.client.HTTPConnection(way.target, timeout=60)
                passed = {
                    k: v for k, v in self.headers.items() if k.lower() not in ("host", "transfer-encoding", "content-length", "expect")
                }
                there.request(self.command, self.path, body, passed)
                answer = there.getresponse()
                told = answer.read()
                if fault is None:
                    status, headers, content = answer.status, answer.getheaders(), told
                there.close()
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            # To HEAD, the length is that of what is not sent.
            length = {name.lower(): value for name, value in headers}.get("content-length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = serve

    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}", way
    finally:
        server.shutdown()
        server.server_close()
