"""A comparison told through the command: knobs chosen apart from what is reported, resumed from the store, refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import TINY, Answer, Console, rerun, states

from e2urec_core.methods.base import Method
from e2urec_core.plugins import kinds, word
from e2urec_core.report.comparison import ComparisonDocument
from e2urec_core.tuning import tries
from flows.comparison import POLES, build_comparison
from flows.published import EXPERIMENTS
from tests.html_page import Page

SHARED = tuple(
    flag for pair in zip(TINY[::2], TINY[1::2], strict=True) if not pair[0].startswith(("--method.", "--evaluate.")) for flag in pair
)
WORDS = ("compare", "sample", "tiny-t5")
SIZE = ("--seeds", "2", "--budget", "2", "--tuning-seed", "5", "--evaluate.floor-seeds", "1")
FLAGS = (*WORDS, "--methods", "undial,e2urec", *SIZE, *SHARED)


@pytest.fixture(scope="module")
def told(console: Console) -> tuple[Answer, dict[str, Any], Path]:
    """What the command said, the run, and the folder of its report."""
    answer = console(*FLAGS)
    assert answer.code == 0, answer.stderr
    run = console.last()
    return answer, run, console.workspace / "reports" / run["run"]


@pytest.fixture(scope="module")
def document(told: tuple[Answer, dict[str, Any], Path]) -> ComparisonDocument:
    return ComparisonDocument.from_json((told[2] / "comparison.json").read_text())


@pytest.mark.slow
def test_every_seed_has_its_poles_its_floor_and_every_method(told: tuple[Answer, dict[str, Any], Path]) -> None:
    stages = set(states(told[1]))
    for seed in (0, 1):
        assert f"train-original (seed {seed})" in stages
        assert f"train-retrained (retrain, seed {seed})" in stages
        assert f"train-retrained seed {seed + 1} (retrain_1, seed {seed})" in stages
        for method in ("undial", "e2urec"):
            assert {f"unlearn ({method}, seed {seed})", f"score ({method}, seed {seed})"} <= stages
    # The tuning seed is not reported, so it needs no floor.
    assert {stage for stage in stages if stage.startswith("train-retrained") and "seed 5" in stage} == {"train-retrained (retrain, seed 5)"}
    assert {f"unlearn ({method}, try {number})" for method in ("undial", "e2urec") for number in (1, 2)} <= stages


@pytest.mark.slow
def test_a_told_comparison_would_be_taken_from_the_store_as_a_whole(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    for command in (("explain", told[1]["run"]), (*FLAGS, "--dry-run")):
        answer = console(*command, "--json")
        assert answer.code == 0, answer.stderr
        stages = answer.json()["stages"]
        assert {each["state"] for each in stages} == {"stored"}
        assert {each["stage"] for each in stages} == set(states(told[1]))


@pytest.mark.slow
def test_a_changed_comparison_is_foreseen_up_to_the_choice_of_knobs(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    answer = console(*FLAGS, "--augment.learning-rate", "0.0004", "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    found = {each["stage"]: each for each in answer.json()["stages"]}
    assert {found[f"train-original (seed {seed})"]["state"] for seed in (0, 1, 5)} == {"stored"}
    # Every try of every method is asked for, though the first that would run ends the choice.
    assert {found[f"unlearn (undial, try {number})"]["state"] for number in (1, 2)} == {"stored"}
    for number in (1, 2):
        augmented = found[f"train-augmented (e2urec, try {number})"]
        assert augmented["state"] == "run"
        assert "augment.learning_rate" in {reason["name"] for reason in augmented["reasons"]}
    assert answer.json()["ends_at"] == "score (e2urec, try 1)"
    refused = console("explain", told[1]["run"], "--augment.learning-rate", "0.0004")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("BadSetting: `--augment.learning-rate` is refused: the settings of a comparison are not changed here")


@pytest.mark.slow
def test_a_choice_sees_no_test_row_and_no_reported_seed(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    import pyarrow.parquet as pq

    for label, entry in told[1]["stages"].items():
        if not label.startswith("score"):
            continue
        folder = console.workspace / "store" / "objects" / "Scores" / entry["handle"]["digest"]
        groups = set(pq.read_table(folder / "scores.parquet", columns=["group"])["group"].to_pylist())
        blind = "try" in label or "seed 5" in label
        assert groups == ({"validation", "forgotten"} if blind else {"test", "forgotten", "holdout", "forgotten_test"}), label


@pytest.mark.slow
def test_the_document_holds_the_poles_first_and_says_how_knobs_were_chosen(document: ComparisonDocument) -> None:
    assert [row.method for row in document.rows] == ["original", "retrain", "undial", "e2urec"]
    assert (document.seeds, document.tuning_seed, document.budget, document.num_retrains) == ([0, 1], 5, 2, 1)
    assert document.reference == "e2urec"
    for row in document.rows[2:]:
        assert len(row.tries) == 2
        assert [each.chosen for each in row.tries].count(True) == 1
        taken = next(each for each in row.tries if each.chosen)
        assert document.chosen[row.method]["training"]["learning_rate"] == taken.knobs["training.learning_rate"]  # type: ignore[call-overload, index]
    original, retrain = document.rows[:2]
    assert original.measures["residual"].values == [1, 1]
    assert retrain.measures["jsd"].values == [0, 0]
    assert set(document.rows[2].against) >= {"residual", "auc", "jsd"}
    assert document.rows[3].against == {}
    assert {"residual", "auc", "forget_auc"} <= document.floor.keys()
    assert "method" not in document.settings
    # The sharing of polluted and other users differs by seed, so do the counts.
    assert len(document.counts) == 2


@pytest.mark.slow
def test_all_in_seconds_hold_what_was_made_for_the_method_first(document: ComparisonDocument) -> None:
    undial, e2urec = (document.row(method) for method in ("undial", "e2urec"))
    assert undial is not None
    assert e2urec is not None
    assert undial.measures["all_in_seconds"] == undial.measures["seconds"]
    assert e2urec.measures["all_in_seconds"].mean > e2urec.measures["seconds"].mean


@pytest.mark.slow
def test_people_are_shown_the_table_and_the_page(told: tuple[Answer, dict[str, Any], Path], document: ComparisonDocument) -> None:
    answer, _, folder = told
    for words in ("Original", "Retrain", "UNDIAL", "E2URec", "Against E2URec", f"report: {folder / 'report.html'}"):
        assert words in answer.stdout
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    for row in document.rows:
        assert row.title in page.text
    assert "NaN" not in page.text
    assert not any(value.startswith("http") for name, value in page.attributes if name in ("src", "href"))


@pytest.mark.slow
def test_mlflow_holds_a_parent_run_with_a_child_for_every_method(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{console.workspace / 'mlflow.db'}")
    parent = client.get_run(told[1]["tracking_run"])
    assert parent.data.metrics["e2urec.residual"] > 0
    (experiment,) = [found for found in client.search_experiments() if found.name == "e2urec"]
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=1000)
    methods = {child.info.run_name: child for child in children if child.info.run_name.startswith("method ")}
    assert set(methods) == {"method original", "method retrain", "method undial", "method e2urec"}
    assert float(methods["method undial"].data.params["training.learning_rate"]) > 0
    assert len(client.get_metric_history(methods["method undial"].info.run_id, "auc")) == 2


@pytest.mark.long
def test_the_same_comparison_again_takes_everything_from_the_store(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    """That it would: above."""
    answer = console(*FLAGS, "--json")
    assert answer.code == 0, answer.stderr
    assert rerun(console.last()) == set()
    first, second = json.loads((told[2] / "comparison.json").read_text()), answer.json()
    assert first.pop("run") != second.pop("run")
    assert first == second


@pytest.mark.long
def test_one_more_method_runs_that_method_alone(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    answer = console(*FLAGS[:4], "undial,e2urec,do-nothing", *FLAGS[5:])
    assert answer.code == 0, answer.stderr
    assert {label for label in rerun(console.last()) if "do_nothing" not in label} == {"compare"}
    assert "Do nothing" in answer.stdout


@pytest.mark.long
def test_a_method_that_fails_as_a_whole_keeps_a_row_with_its_reason(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    answer = console(*FLAGS[:4], "undial,sisa:num-shards=200", *FLAGS[5:], "--json")
    assert answer.code == 0, answer.stderr
    failed = [row for row in answer.json()["rows"] if row["fault"]]
    assert [row["method"].split()[0] for row in failed] == ["sisa"]
    assert "200 shards" in failed[0]["fault"]
    assert failed[0]["measures"] == {}
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_a_stage_of_a_comparison_cannot_be_run_again_alone(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    answer = console("stage", "unlearn", "--run", told[1]["run"])
    assert answer.code == 2
    assert "is a comparison" in answer.stderr


def test_without_flags_there_are_three_seeds_two_further_retrains_four_tries_and_every_method() -> None:
    plan = build_comparison({"dataset": "sample", "backbone": "tiny-t5"}, None, None, {}, {})
    assert (plan.reported, plan.run.evaluate.floor_seeds, plan.tuning.budget, plan.tuning.seed) == ((0, 1, 2), 2, 4, 10)
    assert [entry.name for entry in plan.methods] == [kind for kind in kinds(Method.package) if kind not in POLES]
    assert plan.run.method.kind == "e2urec"


def test_a_variant_keeps_its_knob_and_has_a_name_of_its_own() -> None:
    plan = build_comparison({"dataset": "sample", "backbone": "tiny-t5"}, "e2urec,e2urec:suppression=3;forget-weight=1", None, {}, {})
    plain, variant = plan.methods
    assert (plain.name, plain.title) == ("e2urec", "E2URec")
    assert (variant.name, variant.title) == ("e2urec suppression 3 forget_weight 1", "E2URec (suppression 3, forget weight 1)")
    assert {(each.suppression, each.forget_weight) for each in tries(variant.method, plan.tuning, variant.fixed)} == {(3, 1)}  # type: ignore[attr-defined]
    assert len({each.training.learning_rate for each in tries(variant.method, plan.tuning, variant.fixed)}) == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", EXPERIMENTS)
def test_every_table_of_the_paper_is_one_command(preset: str) -> None:
    experiment = EXPERIMENTS[preset]
    known = {word(kind) for kind in kinds(Method.package)}
    named = [name for name in experiment.methods.split(",") if name.split(":")[0] in known]
    for backbone, rows in (("t5", 100_000), ("tiny-t5", 20_000)):
        flags = {"backbone.checkpoint": "google-t5/t5-base"} if backbone == "t5" else {}
        plan = build_comparison({"dataset": "ml-1m", "backbone": backbone}, ",".join(named), preset, {"dataset.path": ".", **flags}, {})
        assert plan.run.split.last_examples == rows
        assert plan.experiment == preset
    titles = [row["Method"] for row in experiment.rows()]
    assert len(titles) == len(set(titles))
    assert all(len(row) == len(experiment.rows()[0]) for row in experiment.rows())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(("--methods", "undial,nobody"), "1 of 2 methods are unknown: nobody", id="unknown method"),
        pytest.param(("--methods", ","), "0 methods are named", id="no method"),
        pytest.param(("--method.strength", "3"), "`--method.strength` is refused: a comparison has many methods", id="one method's knob"),
        pytest.param(
            ("--tuning-seed", "2"), "knobs would be chosen on seed 2, which is one of the reported 3", id="tuning on a reported seed"
        ),
        pytest.param(("--methods", "undial:strength"), "`undial:strength` sets no knob", id="a variant of nothing"),
        pytest.param(("--methods", "undial:strong=1"), "there is no setting `--method.strong`", id="a variant of an unknown knob"),
        pytest.param(("--budget", "0"), "`--budget 0` is refused", id="no tries"),
        pytest.param(("--seeds", "0"), "`--seeds 0` is refused", id="no seeds"),
    ],
)
def test_bad_input_gets_one_sentence(console: Console, flags: tuple[str, ...], said: str) -> None:
    answer = console(*WORDS, *flags)
    assert answer.code == 2
    assert said in answer.stderr
    assert "hint: " in answer.stderr
    assert "Traceback" not in answer.stderr
