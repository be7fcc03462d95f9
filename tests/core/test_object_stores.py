"""Tables in an object store: the same rows as from files, against a store that speaks S3 on the loopback address."""

from __future__ import annotations

import io
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from e2urec_core.data.files import find
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.object_stores import why
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput

SECRET = "hush-hush-hush"
ROWS = pl.DataFrame(
    {
        "user_id": ["ann", "ben", "ann", "cat"],
        "item_id": ["x", "x", "y", "z"],
        "rating": [5, 2, 4, 1],
        "timestamp": [1_300_000_000 + second for second in range(4)],
    }
)
FORMATS = ("csv", "tsv", "csv.gz", "jsonl", "parquet")


def written(rows: pl.DataFrame, ending: str) -> bytes:
    import gzip

    if ending == "parquet":
        file = io.BytesIO()
        rows.write_parquet(file)
        return file.getvalue()
    if ending == "jsonl":
        return rows.write_ndjson().encode()
    text = rows.write_csv(separator="\t" if ending == "tsv" else ",").encode()
    return gzip.compress(text) if ending.endswith("gz") else text


class Store:
    """A bucket `shelf` whose objects tests write."""

    def __init__(self, client: Any, address: str) -> None:
        self.client, self.address = client, address

    def put(self, key: str, content: bytes) -> str:
        """Write an object; returns its address."""
        self.client.put_object(Bucket="shelf", Key=key, Body=content)
        return f"s3://shelf/{key}"

    def ask_for_credentials(self, *, wanted: bool) -> None:
        """From now on the store knows nobody, or lets everybody in."""
        body, kind = (b"0" if wanted else b"inf"), {"Content-Type": "text/plain"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/moto-api/reset-auth", data=body, method="POST", headers=kind)):
            pass


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        known = {"AWS_ACCESS_KEY_ID": "loopback", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        local = {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}
        for name, value in {**known, **local}.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        client.create_bucket(Bucket="shelf")
        yield Store(client, address)
    server.stop()


def rows_of(path: str) -> list[tuple[object, ...]]:
    frame = Interactions(path=path).scan().rows.collect(engine="streaming")
    return frame.select("file", "line", "user_id", "item_id", "rating", "timestamp_s", "label", "rule").sort("file", "line").rows()


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("shape", ["", "/", "/*", "/**/*"])
def test_a_store_gives_the_same_rows_as_files(ending: str, shape: str, store: Store, tmp_path: Path) -> None:
    folder = f"same-{ending}-{len(shape)}"
    halves = {"part-0": ROWS.head(3), "part-1": ROWS.tail(1)} if shape else {"part-0": ROWS}
    (tmp_path / folder).mkdir()
    for name, rows in halves.items():
        store.put(f"{folder}/{name}.{ending}", written(rows, ending))
        (tmp_path / folder / f"{name}.{ending}").write_bytes(written(rows, ending))
    what = folder + (f"{shape}.{ending}" if shape.endswith("*") else shape or f"/part-0.{ending}")
    told = rows_of(f"s3://shelf/{what}")
    assert told == rows_of(str(tmp_path / what))
    assert [row[2] for row in told] == ["ann", "ben", "ann", "cat"]
    assert find(f"s3://shelf/{what}").names() == find(str(tmp_path / what)).names()


def test_what_is_stored_of_a_store_and_of_a_file_is_the_same_to_the_byte(store: Store, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(written(ROWS, "csv"))
    places = [tmp_path / "near", tmp_path / "far"]
    for place, path in zip(places, (str(tmp_path / "table.csv"), store.put("bytes/table.csv", written(ROWS, "csv"))), strict=True):
        place.mkdir()
        ingest(Interactions(path=path), IngestRule(), place)
    near, far = ((place / "interactions" / "part-00000.parquet").read_bytes() for place in places)
    assert near == far


def test_folders_of_key_and_value_are_columns(store: Store) -> None:
    for month in ("01", "02"):
        store.put(f"hive/year=2026/month={month}/part-0.parquet", written(ROWS, "parquet"))
    frame = find("s3://shelf/hive").scan().collect()
    assert frame.select("year", "month").unique().sort("month").rows() == [("2026", "01"), ("2026", "02")]
    assert frame["file"].unique().sort().to_list() == [f"year=2026/month={month}/part-0.parquet" for month in ("01", "02")]


def test_a_star_stays_within_its_folder_and_marks_of_other_programs_are_passed_over(store: Store) -> None:
    for key in ("deep/new.csv", "deep/old/past.csv", "deep/old/older/first.csv"):
        store.put(key, written(ROWS, "csv"))
    for key in ("deep/_SUCCESS", "deep/.part.crc", "deep/_temporary/0/half.csv"):
        store.put(key, b"no table")
    assert find("s3://shelf/deep/*.csv").names() == ["new.csv"]
    assert find("s3://shelf/deep/*/*.csv").names() == ["old/past.csv"]
    assert find("s3://shelf/deep/**/*.csv").names() == ["new.csv", "old/older/first.csv", "old/past.csv"]
    assert find("s3://shelf/deep").names() == ["new.csv", "old/older/first.csv", "old/past.csv"]


def test_a_folder_that_is_named_like_a_file_is_read_as_a_folder(store: Store) -> None:
    store.put("table.parquet/part-0.parquet", written(ROWS, "parquet"))
    store.put("table.parquet/_SUCCESS", b"")
    assert find("s3://shelf/table.parquet").scan().collect().height == 4


def test_the_fingerprint_follows_what_lies_there(store: Store) -> None:
    address = store.put("print/table.csv", written(ROWS, "csv"))
    dataset, folder = Interactions(path=address), Interactions(path="s3://shelf/print")
    first, both = dataset.fingerprint(), folder.fingerprint()
    assert dataset.fingerprint() == first
    store.put("print/more.csv", written(ROWS, "csv"))
    assert dataset.fingerprint() == first
    assert folder.fingerprint() != both
    store.put("print/table.csv", written(ROWS.head(3), "csv"))
    assert dataset.fingerprint() != first


def refusal(path: str) -> BadInput:
    """What both ways to the store say; nothing of it may be a secret."""
    told = []
    for act in (Interactions(path=path).scan, Interactions(path=path).fingerprint):
        with pytest.raises(BadInput) as refused:
            act()
        assert refused.value.hint
        assert not any(word in str(refused.value) for word in (SECRET, "loopback", "Traceback", "xml", "127.0.0.1"))
        told.append(refused.value)
    assert str(told[0]) == str(told[1])
    return told[0]


@pytest.mark.parametrize("path", ["s3://shelf/nothing.csv", "s3://shelf/nothing/", "s3://shelf/nothing/*.csv", "s3://nobucket/table.csv"])
def test_what_is_not_in_the_store_is_refused(path: str, store: Store) -> None:
    assert f"there is no `{path}`" in refusal(path).fact


@pytest.mark.parametrize("path", ["s3://shelf/shut/table.csv", "s3://shelf/shut", "s3://shelf/shut/*.csv"])
def test_wrong_credentials_are_refused_without_showing_them(path: str, store: Store) -> None:
    store.put("shut/table.csv", written(ROWS, "csv"))
    store.ask_for_credentials(wanted=True)
    try:
        assert "the store refuses the credentials" in refusal(path).fact
    finally:
        store.ask_for_credentials(wanted=False)


def test_credentials_that_fail_between_finding_and_reading_end_as_one_sentence(store: Store, tmp_path: Path) -> None:
    dataset = Interactions(path=store.put("late/table.csv", written(ROWS, "csv")))
    source = dataset.scan()

    class Late(Interactions):
        def scan(self) -> Any:
            return source

    store.ask_for_credentials(wanted=True)
    try:
        with pytest.raises(BadInput, match="the store refuses the credentials") as refused:
            ingest(Late(path=dataset.path), IngestRule(), tmp_path)
    finally:
        store.ask_for_credentials(wanted=False)
    assert SECRET not in str(refused.value)


def test_a_store_that_does_not_answer_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(BadInput, match="the store does not answer") as refused:
            find("s3://shelf/table.csv")
    assert "AWS_ENDPOINT_URL" in refused.value.hint
    assert SECRET not in str(refused.value)


def test_a_table_with_a_ragged_line_in_a_store_is_refused_without_its_text(store: Store, tmp_path: Path) -> None:
    address = store.put("ragged/table.csv", written(ROWS, "csv") + b"dan,z,1,1300000009,one,too,many\n")
    with pytest.raises(BadInput, match="a line has more fields than the header") as refused:
        ingest(Interactions(path=address), IngestRule(), tmp_path)
    assert "dan" not in str(refused.value)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="holds a password") as refused:
        find(f"s3://someone:{SECRET}@shelf/table.csv")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("address", ["https://example.org/table.csv", "ftp://example.org/table.csv", "hdfs://rack/table.csv"])
def test_addresses_of_other_kinds_are_refused(address: str) -> None:
    with pytest.raises(BadInput, match="addresses are not read") as refused:
        find(address)
    assert "s3://" in refused.value.hint


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("object-store error: Object at location a.csv not found: 404 Not Found", "there is no such file"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", "there is no such bucket"),
        ("Server returned non-2xx status code: 403 Forbidden: <Code>SignatureDoesNotMatch</Code>", "the store refuses the credentials"),
        ("AWS Error ACCESS_DENIED during HeadObject operation", "the store refuses the credentials"),
        ("object-store error: Generic S3 error: connection refused", "the store does not answer"),
        ("found more fields than defined in 'Schema'", None),
    ],
)
def test_what_libraries_say_of_stores_is_told_in_plain_words(said: str, meant: str | None) -> None:
    assert why(said) == meant


@pytest.mark.parametrize("folder", ["with space", "city=St.%20Ives", "plus+and=more", "ünïcode", "sharp#tag"])
def test_odd_letters_in_a_name_are_taken_as_they_stand(folder: str, store: Store) -> None:
    store.put(f"odd/{folder}/table.csv", written(ROWS, "csv"))
    for path in (f"s3://shelf/odd/{folder}/table.csv", f"s3://shelf/odd/{folder}", f"s3://shelf/odd/{folder}/*.csv"):
        dataset = Interactions(path=path)
        assert dataset.scan().rows.collect(engine="streaming").height == 4
        assert dataset.fingerprint()
