"""Runs, artifacts and model versions are gone from MLflow to the last byte, and what is kept is as it was, wherever a purge is cut off."""

from __future__ import annotations

import itertools
import multiprocessing
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from e2urec_core import failpoints
from e2urec_core.errors import ReleaseRefused, StorageFailed, TrackingFailed, TrackingRefused
from tasks._purging import TrackingPurge
from tasks._purging_files import ArtifactFolder, ArtifactFolders
from tasks._purging_plan import Purged, PurgePlan, TrackedRun
from tasks._purging_rows import LEFT_BEHIND, DatabaseRows
from tests.purged_shops import CANARY, Shop, plant, plant_columns, purge_until
from tests.tracking_servers import Way, mlflow_server, object_store, way_to

TASKS = Path(__file__).parents[2] / "tasks"
# What foreign keys take along, what is removed by its run's id, and what a run's own call removes.
TAKEN_ALONG = {
    *("logged_model_params", "logged_model_tags", "trace_tags", "trace_request_metadata", "trace_metrics", "spans", "span_metrics"),
    *("issues", "runs"),
}
# MLflow's tables that hold nothing of a run or a version.
OF_NO_RUN = {
    *("alembic_version", "experiments", "experiment_tags", "registered_models", "registered_model_tags", "registered_model_aliases"),
    *("budget_policies", "endpoint_bindings", "endpoint_model_mappings", "endpoint_tags", "endpoints", "guardrail_configs", "guardrails"),
    *("evaluation_dataset_records", "evaluation_dataset_tags", "evaluation_datasets", "job_locks", "jobs", "label_schemas"),
    *("mcp_access_endpoints", "mcp_server_aliases", "mcp_server_tags", "mcp_server_version_tags", "mcp_server_versions", "mcp_servers"),
    *("model_definitions", "online_scoring_configs", "review_queue_label_schemas", "review_queue_users", "review_queues"),
    *("scheduler_leases", "scorer_versions", "scorers", "secrets", "webhook_events", "webhooks", "workspaces"),
    *("sql_assessment_daily_rollups", "sql_span_cost_daily_rollups", "sql_trace_metric_daily_rollups", "sql_trace_rollup_rebuild_queue"),
}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh tracking database, whose making takes seconds."""
    import mlflow

    place = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{place}").search_experiments()
    return place


@pytest.fixture
def shop(tracking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(tracking, tmp_path / "mlflow.db")
    return Shop(tmp_path)


class Told:
    """A shop with an old run, its version and everything planted, and a kept run with the champion below it."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.kept_run = shop.run("kept")
        self.champion, self.kept = shop.version("kept", champion=True)
        self.old_run = shop.run("old", told=f"-{CANARY}")
        self.old, self.old_bundle = shop.version(f"old-{CANARY}")

    def everything_else(self) -> PurgePlan:
        return self.shop.purge.plan([self.kept_run], [self.kept], lambda run: True)

    def purged(self) -> Purged:
        return self.shop.purge.carry_out(self.everything_else())


@pytest.fixture
def told(shop: Shop) -> Told:
    return Told(shop)


def nested_in(shop: Shop, run: str) -> list[str]:
    runs = shop.client.search_runs([shop.client.get_run(run).info.experiment_id], f"tags.mlflow.parentRunId = '{run}'")
    return [each.info.run_id for each in runs]


def kept_rows(told: Told) -> list[tuple[object, ...]]:
    """Every row of the kept run, of those nested in it, and of the champion."""
    rows = told.shop.rows(told.kept_run, *nested_in(told.shop, told.kept_run), told.kept)
    assert {row[0] for row in rows} >= {"runs", "tags", "params", "metrics", "latest_metrics", "model_versions", "model_version_tags"}
    return rows


def files_of(shop: Shop) -> list[str]:
    return sorted(str(path.relative_to(shop.place / "mlartifacts")) for path in (shop.place / "mlartifacts").rglob("*"))


def test_no_byte_of_what_is_removed_is_found_and_what_is_kept_has_the_same_rows(told: Told) -> None:
    shop = told.shop
    plant(shop, told.old_run)
    planted = plant_columns(shop, {told.old_run, *nested_in(shop, told.old_run)}, {told.old})
    assert {"runs.name", "runs.user_id", "params.value", "model_versions.storage_location", "model_version_tags.value"} <= set(planted)
    # The version is found by its tag, which is planted over; a tag that is none of a kept bundle is the case that is to be removed.
    rows, files = kept_rows(told), {name for name in files_of(shop) if name.startswith(told.kept_run)}
    size = sum(
        path.lstat().st_size for path in (shop.place / "mlartifacts").rglob("*") if path.is_file() and told.kept_run not in str(path)
    )
    assert len(shop.found(CANARY)) > 5
    plan = told.everything_else()
    assert (len(plan.runs), len(plan.versions)) == (3, 1)
    assert "3 runs, 2 of them nested" in plan.sentences()[0]
    done = shop.purge.carry_out(plan)
    assert shop.found(CANARY) == []
    assert shop.found(told.old_run) == []
    assert shop.found(told.old_bundle[:12]) == []
    assert kept_rows(told) == rows
    assert set(files_of(shop)) == files
    assert shop.desk.registry.aliases() == {"champion": told.champion}
    # The report, the bundle's file and its manifest, the logged model's and the trace's.
    assert (done.runs, done.versions, done.files, done.left) == (3, 1, 5, ())
    assert done.bytes == size
    assert told.everything_else().empty


def test_without_the_removal_everything_planted_is_found(told: Told) -> None:
    """The search that finds nothing afterwards would have found each of them."""
    plant(told.shop, told.old_run)
    rows = list(told.shop.rows(CANARY))
    assert {row[0] for row in rows} >= {"datasets", "input_tags", "logged_models", "logged_model_params", "logged_model_tags", "spans"}
    assert {row[0] for row in rows} >= {"trace_metrics", "span_metrics", "assessments", "issues", "trace_info", "review_queue_items"}


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (DatabaseRows, "erase_before"),
        (DatabaseRows, "erase_left_behind"),
        (ArtifactFolders, "remove_stray"),
        (TrackingPurge, "_remove_version"),
    ],
)
def test_each_step_that_is_left_out_is_found(told: Told, owner: type, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(told.shop, told.old_run)
    monkeypatch.setattr(owner, step, lambda *_: None)
    told.purged()
    assert told.shop.found(CANARY)


def test_the_file_is_overwritten(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.entities import Param

    def free() -> int:
        return int(sqlite3.connect(told.shop.place / "mlflow.db").execute("PRAGMA freelist_count").fetchone()[0])

    told.shop.tracker.client.log_batch(told.old_run, params=[Param(f"long-{number}", "x" * 5000) for number in range(50)])
    with monkeypatch.context() as patch:
        patch.setattr(DatabaseRows, "overwrite", lambda _: None)
        told.purged()
    assert free() > 50
    told.purged()
    assert free() == 0


def test_every_table_of_the_installed_mlflow_is_known(shop: Shop) -> None:
    connection = sqlite3.connect(shop.place / "mlflow.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {table for table, _ in LEFT_BEHIND} | TAKEN_ALONG | OF_NO_RUN


def test_a_version_that_was_deleted_before_is_erased_and_its_number_is_not_given_again(told: Told) -> None:
    shop = told.shop
    shop.client.delete_model_version("shop", str(told.old))
    plan = shop.purge.plan([], [told.kept], [])
    # Its four tags (its own, its bundle and the two that `register` adds are all that it has), and itself as the highest number.
    assert plan.num_rows == len([row for row in shop.rows(told.old_bundle, f"old-{CANARY}") if row[0] == "model_version_tags"]) + 1
    assert not plan.empty
    shop.purge.carry_out(plan)
    bare = [row for row in shop.rows("shop") if row[0] == "model_versions" and row[2] == told.old]
    assert bare == [("model_versions", "shop", told.old, None, None, None, None, "Deleted_Internal", *[None] * 6, "default")]
    assert shop.purge.plan([], [told.kept], []).num_rows == 0
    shop.run("next")
    assert shop.version("next")[0] == told.old + 1
    shop.purge.carry_out(shop.purge.plan([], [told.kept, shop.desk.releases.release(told.old + 1).bundle], []))
    assert [row for row in shop.rows("shop") if row[0] == "model_versions" and row[2] == told.old] == []


def test_the_champion_is_never_removed_nor_the_run_that_holds_its_files(told: Told) -> None:
    before = told.shop.found("")
    for asked in (
        lambda: told.shop.purge.plan([told.kept_run], [told.old_bundle], []),
        lambda: told.shop.purge.plan([], [told.kept], lambda run: True),
        lambda: told.shop.purge.plan([], [told.kept], [told.kept_run]),
    ):
        with pytest.raises(ReleaseRefused) as caught:
            asked()
        assert "champion" in caught.value.fact or f"version {told.champion} is to be kept" in caught.value.fact
    assert told.shop.found("") == before


def test_a_promotion_after_the_plan_is_seen_before_anything_is_removed(told: Told) -> None:
    plan, before, releases = told.everything_else(), told.shop.found(""), told.shop.desk.releases
    releases.promote(told.old, seen_epoch=releases.line().epoch, kind="promote", run="test")
    with pytest.raises(ReleaseRefused, match=f"version {told.old} is the champion"):
        told.shop.purge.carry_out(plan)
    assert told.shop.found("") == before


def test_a_registry_that_does_not_hold_the_champion_is_not_purged(told: Told) -> None:
    told.shop.client.delete_model_version("shop", str(told.champion))
    with pytest.raises(ReleaseRefused, match="the registry holds no version"):
        told.everything_else()


def test_a_bundle_that_is_not_kept_goes_from_a_run_that_is(shop: Shop) -> None:
    run = shop.run("both")
    old, old_bundle = shop.version("first")
    champion, kept = shop.version("second", champion=True)
    shop.client.set_registered_model_alias("shop", "previous", str(old))
    done = shop.purge.carry_out(shop.purge.plan([run], [kept], []))
    assert (done.runs, done.versions, done.files) == (0, 1, 2)
    assert shop.found(old_bundle[:12]) == []
    assert shop.found(kept[:12])
    assert shop.desk.registry.aliases() == {"champion": champion}
    assert shop.desk.registry.fetch(champion, shop.bundle("second"), shop.place / "store" / "tmp")


def test_the_aliases_are_copied_from_the_ledger_as_before_where_the_previous_champion_was_removed(shop: Shop) -> None:
    run = shop.run("both")
    previous, _ = shop.version("first", champion=True)
    champion, kept = shop.version("second", champion=True)
    challenger, refused = shop.version("third")
    assert shop.desk.registry.aliases() == {"champion": champion, "previous": previous, "challenger": challenger}
    shop.purge.carry_out(shop.purge.plan([run], [kept, refused], []))
    assert shop.desk.registry.aliases() == {"champion": champion, "challenger": challenger}
    assert shop.desk.mirror() == []
    shop.purge.carry_out(shop.purge.plan([run], [kept], []))
    assert shop.desk.mirror() == []
    assert shop.desk.registry.aliases() == {"champion": champion}


def test_a_run_that_is_running_goes_only_where_it_is_named(told: Told) -> None:
    shop = told.shop
    running = shop.run("running", status="RUNNING", stages=1)
    plan = told.everything_else()
    assert running not in {run.id for run in plan.runs}
    assert running in plan.notes[0]
    shop.purge.carry_out(plan)
    assert {run.info.run_id for run in shop.client.search_runs(["1"])} == {
        running,
        *nested_in(shop, running),
        told.kept_run,
        *nested_in(shop, told.kept_run),
    }
    assert {run.name for run in shop.purge.plan([], [told.kept], [running]).runs} == {"running", "stage-0"}


def test_runs_are_chosen_by_what_they_are_and_nested_ones_follow(told: Told) -> None:
    def old(run: TrackedRun) -> bool:
        return run.tags["e2urec.run"].startswith("old")

    plan = told.shop.purge.plan([], [told.kept], old)
    assert {run.id for run in plan.runs} == {told.old_run, *nested_in(told.shop, told.old_run)}
    # Nested ones go first: of a purge that is cut off between them none is left without the run that it follows.
    assert plan.runs[-1].id == told.old_run


def test_what_was_marked_deleted_and_what_belongs_to_no_run_goes_too(told: Told) -> None:
    shop = told.shop
    shop.client.delete_run(told.old_run)
    for stray in (".trash/x.txt", "models/m-1/artifacts/x.txt", "traces/t-1/x.txt", "nobody/artifacts/x.txt"):
        path = shop.place / "mlartifacts" / stray
        path.parent.mkdir(parents=True)
        path.write_text(CANARY)
    (shop.place / "mlartifacts" / "link").symlink_to(shop.place / "store")
    plan = told.everything_else()
    assert [path.name for path in plan.strays] == [".trash", "link", "models", "nobody", "traces"]
    # Four strays, a link, the report and the bundle's two files.
    assert shop.purge.carry_out(plan).files == 8
    assert shop.found(CANARY) == []
    assert (shop.place / "store").is_dir()
    assert [name.split("/")[0] for name in files_of(shop)] == [told.kept_run] * len(files_of(shop))


def test_a_run_that_is_made_while_a_plan_is_made_is_no_stray(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    places, made = DatabaseRows.places, []

    def slow(rows: DatabaseRows) -> set[str]:
        found = places(rows)
        if not made:
            made.append(told.shop.run("meanwhile"))
        return found

    monkeypatch.setattr(DatabaseRows, "places", slow)
    assert told.shop.purge.plan([], [told.kept, told.old_bundle], []).strays == ()
    assert (told.shop.place / "mlartifacts" / made[0]).is_dir()


def test_a_copied_workspace_never_touches_the_files_of_the_one_it_was_copied_from(told: Told, tmp_path: Path) -> None:
    copied = Shop(Path(shutil.copytree(told.shop.place, tmp_path / "copied", ignore=shutil.ignore_patterns("copied"))))
    before = told.shop.found("")
    with pytest.raises(StorageFailed, match="6 runs of the tracking database keep"):
        copied.purge.plan([told.kept_run], [told.kept], lambda run: True)
    assert told.shop.found("") == before


def test_a_link_to_the_workspace_is_the_workspace(told: Told, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(told.shop.place)
    assert Shop(link).purge.plan([told.kept_run, told.old_run], [told.kept, told.old_bundle], []).empty


@pytest.mark.long
def test_a_database_in_which_somebody_reads_is_said_to_be_and_finished_later(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2UREC_TRACKING_PATIENCE_S", "0")
    database = sqlite3.connect(told.shop.place / "mlflow.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN")
    database.execute("SELECT COUNT(*) FROM runs").fetchall()
    with pytest.raises(TrackingFailed, match=r"did not answer"):
        told.purged()
    database.close()
    assert told.everything_else().empty
    told.purged()
    assert told.shop.found(CANARY) == []


POINTS = ("purge.version", "purge.files", "purge.run-marked", "purge.issues", "purge.run", "purge.rows", "purge.rows-erased")
SOME = ("purge.version", "purge.run", "purge.rows-erased")
POINTS += ("purge.stray", "purge.vacuum", "purge.overwritten")


def test_every_failpoint_of_the_purge_is_one_of_these() -> None:
    sources = "".join(path.read_text() for path in sorted(TASKS.glob("_purging*.py")))
    assert set(re.findall(r'failpoint\("([a-z.-]+)"\)', sources)) == {*POINTS, "purge.tag"}


@pytest.mark.parametrize("point", [point if point in SOME else pytest.param(point, marks=pytest.mark.long) for point in POINTS])
def test_a_purge_that_is_cut_off_anywhere_is_finished_by_the_next(told: Told, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(told.shop, told.old_run)
    rows = kept_rows(told)
    for nth in itertools.count(1):
        monkeypatch.setattr(failpoints, "_passed", {})
        monkeypatch.setenv(failpoints.VARIABLE, f"{point}:{nth}:raise")
        try:
            told.purged()
        except OSError:
            monkeypatch.delenv(failpoints.VARIABLE)
            continue
        break
    assert nth > 1
    assert told.everything_else().empty
    assert told.shop.found(CANARY) == []
    assert kept_rows(told) == rows


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", [pytest.param("purge.run", marks=pytest.mark.long), "purge.rows", pytest.param("purge.vacuum", marks=pytest.mark.long)]
)
def test_a_killed_purge_is_finished_by_the_next(told: Told, point: str) -> None:
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(["mlflow", "tests.purged_shops"])
    child = children.Process(target=purge_until, args=(told.shop.place, (told.kept_run,), (told.kept,), point))
    rows = kept_rows(told)
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    told.purged()
    assert told.everything_else().empty
    assert told.shop.found(CANARY) == []
    assert kept_rows(told) == rows
    assert told.shop.desk.registry.aliases()["champion"] == told.champion


@pytest.fixture(scope="module", params=[pytest.param("object store", marks=pytest.mark.long), "proxied folder"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Way, dict[str, str]]]:
    """A server's folder, a way to it, and the environment of its clients; artifacts go to a store directly, or through the server."""
    folder = tmp_path_factory.mktemp("server")
    with object_store("shelf") as environment:
        words = {
            "object store": ("--default-artifact-root", "s3://shelf/models", "--no-serve-artifacts"),
            "proxied folder": ("--artifacts-destination", str(folder / "artifacts")),
        }[request.param]
        with mlflow_server(folder, *words, environment=environment) as address, way_to(address) as (way_address, way):
            yield folder, way, {**environment, "MLFLOW_TRACKING_URI": way_address}


def objects(environment: dict[str, str]) -> list[str]:
    import boto3

    client = boto3.client("s3", endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"], region_name="us-east-1")
    return [each["Key"] for each in client.list_objects_v2(Bucket="shelf").get("Contents", [])]


@pytest.mark.slow
def test_a_server_loses_its_files_and_versions_and_says_what_it_keeps(
    served: tuple[Path, Way, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, way, environment = served
    for name, value in {**environment, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "E2UREC_TRACKING_PATIENCE_S": "20"}.items():
        monkeypatch.setenv(name, value)
    told = Told(Shop(tmp_path))
    # Deleted by hand: marked, with its files.
    told.shop.client.delete_run(told.old_run)

    def stored() -> list[str]:
        return objects(environment) + [str(path) for path in (folder / "artifacts").rglob("*") if path.is_file()]

    # The store of one test is the next one's, too.
    kept = [name for name in stored() if told.old_run not in name]
    assert len(stored()) == len(kept) + 3
    # Answers that are lost after the server has done what it was asked for.
    for path in ("model-versions/delete", "runs/delete", "model-versions/delete-tag"):
        way.spoil(path, after=True)
    plan = told.everything_else()
    done = told.shop.purge.carry_out(plan)
    assert (len(plan.runs), done.versions, done.files) == (3, 1, 3)
    assert stored() == kept
    assert told.shop.desk.registry.aliases() == {"champion": told.champion}
    assert "3 runs are marked deleted on the tracking server; `mlflow gc` there removes their rows" in done.left
    assert "1 deleted model versions keep their number and storage path" in done.left[1]
    database = sqlite3.connect(folder / "server.db")
    assert database.execute("SELECT COUNT(*) FROM model_version_tags WHERE version = ?", [told.old]).fetchall() == [(0,)]
    assert told.everything_else().empty


def test_a_store_that_does_not_delete_is_an_error(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        """As MLflow's stores are that take a deletion and do nothing."""

        def list_artifacts(self, path: str | None) -> list[object]:
            return [SimpleNamespace(path="model.safetensors", is_dir=False, file_size=7)]

        def delete_artifacts(self, path: str | None) -> None:
            pass

    monkeypatch.setattr(ArtifactFolders, "_repository", lambda folders, root: Deaf())
    folders = ArtifactFolders(shop.tracker)
    found = folders.measured("ftp://shop/run/artifacts")
    assert found == ArtifactFolder("ftp://shop/run/artifacts", "", 1, 7)
    with pytest.raises(TrackingRefused, match="still lists files"):
        folders.remove(found)
