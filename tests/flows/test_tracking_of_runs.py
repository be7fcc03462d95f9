"""What MLflow keeps of a told story: settings, losses, seconds, the report, the adapter, and a model that other tools can load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest
from e2urec_console import STAGES, Story

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(story: Story) -> Iterator[MlflowClient]:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{story.workspace / 'mlflow.db'}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def journal(story: Story) -> dict[str, Any]:
    return dict(json.loads((story.workspace / "runs" / f"{story.run}.json").read_text()))


@pytest.fixture(scope="module")
def nested(client: MlflowClient, journal: dict[str, Any]) -> dict[str, Any]:
    """The stages' runs by stage."""
    parent = client.get_run(journal["tracking_run"])
    found = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {run.data.tags["e2urec.stage"]: run for run in found}


def flat(settings: dict[str, Any], above: str = "") -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in settings.items():
        pairs |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: str(value)}
    return pairs


def model_of(journal: dict[str, Any]) -> str:
    """Where MLflow keeps the run's released model."""
    return f"runs:/{journal['tracking_run']}/recommender/{journal['stages']['bundle']['handle']['digest'][:12]}"


def stored(story: Story, journal: dict[str, Any], stage: str) -> Path:
    entry = journal["stages"][stage]
    return story.workspace / "store" / "objects" / entry["kind"] / entry["handle"]["digest"]


def test_the_run_is_finished_and_holds_every_setting_under_its_own_name(client: MlflowClient, journal: dict[str, Any]) -> None:
    run = client.get_run(journal["tracking_run"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["e2urec.run"] == journal["run"]
    assert run.data.params["method.suppression"] == "60.0"
    assert run.data.params == flat(journal["settings"])


def test_the_run_holds_the_numbers_of_the_report(client: MlflowClient, story: Story, journal: dict[str, Any]) -> None:
    metrics = client.get_run(journal["tracking_run"]).data.metrics
    for row in json.loads((story.reports / "report.json").read_text())["rows"]:
        for measure in ("auc", "log_loss", "jsd", "seconds", "total_parameters"):
            assert metrics[f"{row['method']}.{measure}"] == row[measure]


def test_every_stage_has_a_finished_run_of_its_own_below(nested: dict[str, Any], journal: dict[str, Any]) -> None:
    assert set(nested) == set(STAGES)
    for stage, run in nested.items():
        assert (run.info.status, run.info.run_name) == ("FINISHED", stage)
        assert run.data.metrics["seconds"] == pytest.approx(journal["stages"][stage]["seconds"])
        assert run.data.metrics["rows"] == journal["stages"][stage]["handle"]["rows"]
        assert run.data.tags["e2urec.digest"] == journal["stages"][stage]["handle"]["digest"]


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("train-original", {"answer"}),
        ("train-augmented", {"answer"}),
        ("train-retrained", {"answer"}),
        ("unlearn", {"forget", "answer", "remember"}),
    ],
)
def test_a_training_stage_keeps_its_loss_of_every_step(
    client: MlflowClient, nested: dict[str, Any], story: Story, journal: dict[str, Any], stage: str, parts: set[str]
) -> None:
    curve = json.loads((stored(story, journal, stage) / "facts.json").read_text())["curve"]
    assert set(curve[0]["parts"]) == parts
    kept = client.get_metric_history(nested[stage].info.run_id, "loss")
    assert [(point.step, point.value) for point in kept] == [(point["step"], point["loss"]) for point in curve]
    for part in parts:
        kept = client.get_metric_history(nested[stage].info.run_id, part)
        assert [point.value for point in kept] == [point["parts"][part] for point in curve]


def test_report_and_adapter_are_artifacts_byte_by_byte(client: MlflowClient, story: Story, journal: dict[str, Any], tmp_path: Path) -> None:
    run_id = journal["tracking_run"]
    here = Path(client.download_artifacts(run_id, "", str(tmp_path)))
    for name in ("report.json", "report.html"):
        assert (here / "report" / name).read_bytes() == (story.reports / name).read_bytes()
    adapter = stored(story, journal, "unlearn") / "adapter"
    assert sorted(path.name for path in (here / "adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for path in adapter.iterdir():
        assert (here / "adapter" / path.name).read_bytes() == path.read_bytes()


def test_the_logged_model_gives_the_recommenders_own_probabilities(client: MlflowClient, story: Story, journal: dict[str, Any]) -> None:
    import mlflow
    import pandas as pd

    from e2urec_core.data.prompts import PromptRule, rendered
    from e2urec_core.recommender import load

    folders = stored(story, journal, "split"), stored(story, journal, "ingest")
    texts = [text for _, told in rendered(*folders, PromptRule()) for text in told.to_pylist()][:90]
    assert len({len(text) for text in texts}) > 10
    model = mlflow.pyfunc.load_model(model_of(journal))
    assert "prompt" in model.metadata.get_input_schema().input_names()
    recommender = load(stored(story, journal, "unlearn"))
    own = recommender.score(recommender.prompts(numpy.arange(90), numpy.zeros(90, dtype=numpy.int8), texts))
    served = model.predict(pd.DataFrame({"prompt": texts}))
    # The batches differ, and with them the order of float32 sums.
    numpy.testing.assert_allclose(numpy.asarray(served, dtype=float).ravel(), own, atol=1e-6, rtol=0)
    assert own.std() > 1e-4


def test_the_logged_model_is_safetensors_and_json_made_from_code_and_loads_where_the_workspace_is_not(
    client: MlflowClient, journal: dict[str, Any], tmp_path: Path
) -> None:
    import mlflow
    import pandas as pd

    here = Path(mlflow.artifacts.download_artifacts(model_of(journal), dst_path=str(tmp_path)))
    bundle = {path.name for path in (here / "artifacts" / "bundle").iterdir()}
    assert bundle == {"config.json", "model.safetensors", "tokenizer.json", "answers.json", "prompt.json", "probe.json"}
    assert "loader_module: mlflow.pyfunc.loaders.code_model\n" in (here / "MLmodel").read_text()
    prompt = pd.DataFrame({"prompt": ["Watched so far, oldest first: none."]})
    (probability,) = mlflow.pyfunc.load_model(str(here)).predict(prompt)["yes_probability"]
    assert 0 < probability < 1


def test_a_prompt_longer_than_the_network_reads_is_cut_at_its_oldest_end(
    client: MlflowClient, journal: dict[str, Any], story: Story
) -> None:
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model(model_of(journal))
    tail = " Crimson Orbit (5*)" * 400
    long, longer = model.predict(pd.DataFrame({"prompt": ["Pirate" * 100 + tail, "Ghost" * 3000 + tail]}))["yes_probability"]
    assert long == pytest.approx(longer, abs=1e-6)
