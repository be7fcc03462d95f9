"""A server that is down or slow: calls are made again where that may help, and end in one sentence without credentials."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from e2urec_core.errors import BadSetting, TrackingFailed, TrackingRefused
from tasks import _patience
from tasks._patience import VARIABLE, may_pass, patience_s, patiently

DOWN, REFUSED = "TEMPORARILY_UNAVAILABLE", "INVALID_PARAMETER_VALUE"


def fault(code: str) -> MlflowException:
    return MlflowException(
        f"no: {code}\nsecond line", error_code=getattr(__import__("mlflow.protos.databricks_pb2", fromlist=[code]), code)
    )


class Server:
    """Fails some times, then answers."""

    def __init__(self, *faults: Exception) -> None:
        self.faults, self.calls = list(faults), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return "well"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_patience, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(_patience, "LONGEST_DELAY_S", 0.002)


def test_a_call_that_fails_for_a_while_is_made_again_until_it_succeeds() -> None:
    server = Server(fault(DOWN), ConnectionError("refused"), TimeoutError())
    assert patiently(server, "http://here", 30) == "well"
    assert server.calls == 4


def test_an_answer_that_is_no_is_not_asked_for_again() -> None:
    server = Server(fault(REFUSED), fault(REFUSED))
    with pytest.raises(TrackingRefused, match=r"refused a call: no: INVALID_PARAMETER_VALUE\n  server"):
        patiently(server, "http://here", 30)
    assert server.calls == 1


def test_patience_ends_in_one_sentence_that_holds_no_password() -> None:
    server = Server(*[fault(DOWN)] * 10_000)
    with pytest.raises(TrackingFailed) as caught:
        patiently(server, "https://nurse:hush@models.example", 0.05)
    assert server.calls > 2
    assert "did not answer within 0 s: no: TEMPORARILY_UNAVAILABLE" in str(caught.value)
    assert "https://models.example" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "second line" not in str(caught.value)
    assert not isinstance(caught.value, TrackingRefused)


def test_a_bug_of_ours_is_neither_repeated_nor_hidden() -> None:
    server = Server(KeyError("x"))
    with pytest.raises(KeyError):
        patiently(server, "http://here", 30)
    assert server.calls == 1


@pytest.mark.parametrize(("status", "passes"), [(500, True), (503, True), (429, True), (403, False), (404, False)])
def test_an_object_store_is_asked_again_where_its_own_answer_says_so(status: int, passes: bool) -> None:
    from botocore.exceptions import ClientError

    error = ClientError({"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")
    assert may_pass(error) is passes


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_a_patience_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(BadSetting, match=f"{VARIABLE}={given}"):
        patience_s()
    monkeypatch.setenv(VARIABLE, "2.5")
    assert patience_s() == 2.5
