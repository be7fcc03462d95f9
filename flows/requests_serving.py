"""Takes deletion requests in by HTTP, for a company's own backend on the same machine or behind its own proxy.

Every answer is JSON; a refusal is {"error", "hint"}. Nothing that comes in is logged: no path, no body, no message of an exception.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from e2urec_core.errors import BadInput, BadSetting, DamagedLedger, KeyReused, RequestRefused, StorageFailed, UnknownRequest, UserError
from e2urec_core.ledger.request_records import NewRequest, RequestRecord
from e2urec_core.ledger.requests import Requests
from tasks._progress import say

VARIABLE = "E2UREC_REQUESTS_TOKEN"
MOST_BYTES = 64 * 1024
SHORTEST_TOKEN = 32
SHOWN = {"id", "subject", "state", "scope", "reason", "requested_at", "received_at", "covers_until", "due_at", "changed_at", "receipt"}
"""What of a request is answered."""


class BodyTooLarge(UserError):
    """A document that is longer than a request can be."""


STATUS: dict[type[UserError], int] = {
    UnknownRequest: 404,
    KeyReused: 409,
    RequestRefused: 409,
    BodyTooLarge: 413,
    BadInput: 422,
    StorageFailed: 503,
    DamagedLedger: 503,
}


def build(requests: Requests, token: str) -> FastAPI:
    """The application: whoever gives the token may add requests, look at them by name, and cancel them.

    Args:
        requests: Where requests are kept.
        token: What must stand after `Authorization: Bearer`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    expected = f"Bearer {token}".encode()

    @app.middleware("http")
    async def guard(request: Request, onward: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if request.url.path != "/health" and not hmac.compare_digest(given, expected):
            return _refusal(401, "the token is missing or wrong", "send `Authorization: Bearer TOKEN`")
        return await onward(request)

    @app.post("/requests")
    async def add(request: Request) -> Response:
        new = NewRequest.read(await _body(request))
        key = request.headers.get("idempotency-key")
        return await run_in_threadpool(_added, requests, new, key)

    @app.get("/requests/{name}")
    def look(name: str) -> Response:
        return _answer(requests.request(name))

    @app.delete("/requests/{name}")
    def cancel(name: str) -> Response:
        return _answer(requests.cancel(name))

    @app.get("/health")
    def health() -> Response:
        requests.check()
        return JSONResponse({"status": "ok"})

    @app.exception_handler(UserError)
    def refused(_: Request, error: UserError) -> Response:
        return _refusal(STATUS.get(type(error), 500), error.fact, error.hint)

    @app.exception_handler(HTTPException)
    def unknown(_: Request, error: HTTPException) -> Response:
        return _refusal(error.status_code, "there is nothing here", "POST /requests, GET and DELETE /requests/NAME, GET /health")

    @app.exception_handler(Exception)
    def failed(_: Request, error: Exception) -> Response:
        say(f"a request failed: {type(error).__name__}")
        return _refusal(500, "the request failed; nothing is known of why", "send it again with the same Idempotency-Key")

    return app


def serve(requests: Requests, token: str, host: str, port: int) -> None:
    """Listen until a signal ends it.

    Raises:
        BadSetting: The address cannot be listened on.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise BadSetting(
            f"`--host {host} --port {port}` cannot be listened on: {error.strerror or error}", hint="name another port or address"
        ) from error
    with listening:
        say(f"listening on http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            build(requests, token), log_config=None, log_level="critical", access_log=False, server_header=False, limit_concurrency=100
        )
        uvicorn.Server(config).run(sockets=[listening])


def read_token(path: Path | None) -> str:
    """The token: of a file that its owner alone may read, or else of `E2UREC_REQUESTS_TOKEN`.

    Raises:
        BadSetting: There is none, it is too short, or others may read the file.
    """
    hint = f"write one with `(umask 77; openssl rand -hex 32 > FILE)`, and name it by `--token-file FILE` or set `{VARIABLE}`"
    if path is None:
        told = os.environ.get(VARIABLE, "")
    else:
        try:
            mode, told = path.stat().st_mode & 0o777, path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise BadSetting(f"the file of the token cannot be read: {getattr(error, 'strerror', 'it is no ASCII')}", hint=hint) from error
        if mode & 0o077:
            raise BadSetting(f"others may read or change the file of the token: its mode is {mode:o}, not 600", hint="draw a new token")
    token = told.strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise BadSetting(f"the token has {len(token)} characters, not at least {SHORTEST_TOKEN} of ASCII", hint=hint)
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise BodyTooLarge(f"the document is longer than {MOST_BYTES:,} bytes", hint="send one request at a time")
    return bytes(body)


def _added(requests: Requests, new: NewRequest, key: str | None) -> Response:
    record = requests.add(new, "http", key)
    # Who posts knows the person, and hands on what will open the receipt.
    return _answer(record, status=202, nonce=requests.identity(record.id).nonce)


def _answer(record: RequestRecord, status: int = 200, **more: Any) -> Response:
    return JSONResponse(record.model_dump(mode="json", include=SHOWN) | more, status)


def _refusal(status: int, error: str, hint: str) -> Response:
    return JSONResponse({"error": error, "hint": hint}, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)
