"""Every stage after a request for single interactions reads the rows as they are told without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from e2urec_core import stages
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.batches import Prompts
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.data.tokens import prompts_of_part, prompts_of_split, prompts_retold
from e2urec_core.engine import Bench
from e2urec_core.errors import BadSetting, StaleCache
from e2urec_core.methods.base import Method, Outcome, Problem
from e2urec_core.methods.do_nothing import DoNothing
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.methods.ifru import Ifru
from e2urec_core.settings import Augment, CacheRule, Lora, Training
from flows.runs import build_run

BACKBONE = TinyT5(width=16, num_layers=1, num_heads=2, inner_width=32, vocabulary=400)
AUGMENT = Augment(num_epochs=1, batch_size=16)
METHOD = E2URec(training=Training(num_epochs=1, batch_size=6, learning_rate=5e-3), lora=Lora(rank=4))
RULE = CacheRule(top=8, rows_per_group=16, retained_per_forgotten=2.0)
QUICK = Training(num_epochs=1, batch_size=32, learning_rate=5e-3)


@pytest.fixture(scope="module")
def folders(tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of every stage up to both teachers' outputs; six users take an interaction back."""
    import polars as pl

    root = tmp_path_factory.mktemp("interactions")
    names = ("examples", "tokens", "request", "retold", "original", "augmented", "remembering", "teachers")
    made = {name: root / name for name in names}
    for place in made.values():
        place.mkdir()
    stages.split(tiny_interactions, HistoryRule(length=4, at_least=3), SplitRule(holdout_share=0.2), 0, made["examples"])
    trained = pl.read_parquet(made["examples"] / "examples.parquet").filter(split="train")
    oldest, newest = (trained.unique("user_id", keep=which, maintain_order=True) for which in ("first", "last"))
    pl.concat([oldest.head(3), newest.tail(3)]).select("user_id", "item_id").write_csv(root / "named.csv")
    stages.forget(tiny_interactions, made["examples"], ForgetRule(interactions_file=root / "named.csv"), 0, made["request"])
    stages.tokenise(made["examples"], tiny_interactions, PromptRule(), BACKBONE, made["tokens"])
    stages.retell(made["request"], tiny_interactions, made["tokens"], PromptRule(), made["retold"])
    bench, given = Bench(0), {name: made[name] for name in ("original", "tokens", "request")}
    stages.train_original(made["tokens"], BACKBONE, QUICK, bench, made["original"])
    stages.train_augmented(**given, augment=AUGMENT, bench=bench, place=made["augmented"], retold=made["retold"])
    stages.cache_original(**given, rule=RULE, earlier=[], bench=bench, place=made["remembering"], retold=made["retold"])
    stages.cache_teachers(**given, augmented=made["augmented"], rule=RULE, bench=bench, place=made["teachers"])
    return made


def unlearned(folders: dict[str, Path], method: Method, place: Path, **changes: Any) -> int:
    place.mkdir()
    given = {name: folders[name] for name in ("original", "tokens", "request", "augmented", "remembering", "teachers", "retold")}
    return stages.unlearn(
        **{"method": method, "rule": RULE, "shards": None, "backbone": BACKBONE, "training": QUICK, **given, **changes},
        bench=Bench(0),
        place=place,
    )  # type: ignore[arg-type]


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """What methods were given."""
    seen: list[Problem] = []
    idle = DoNothing.unlearn

    def noting(method: DoNothing, problem: Problem, bench: Bench) -> Outcome:
        seen.append(problem)
        return idle(method, problem, bench)

    monkeypatch.setattr(DoNothing, "unlearn", noting)
    return seen


def same(one: Prompts, other: Prompts) -> bool:
    return all(numpy.array_equal(getattr(one, name), getattr(other, name)) for name in ("example_ids", "labels", "flat", "starts"))


def test_a_method_is_given_the_rows_as_they_are_told_now_and_the_changed_ones_as_they_were(
    folders: dict[str, Path], problems: list[Problem], tmp_path: Path
) -> None:
    no_cache = dict.fromkeys(("augmented", "remembering", "teachers"))
    for place, changes in (("now", {}), ("once", {"retold": None})):
        unlearned(folders, DoNothing(), tmp_path / place, **no_cache, **changes)
    now, once = problems
    assert once.changed is None
    assert now.changed is not None
    assert same(now.forgotten, once.forgotten)
    counts = stages.facts(folders["request"])["counts"]
    assert len(now.changed.before) == counts["changed_training"] > 3
    for told, problem in ((now.changed.after, now), (now.changed.before, once)):
        chosen = numpy.flatnonzero(numpy.isin(problem.retained.example_ids, told.example_ids))
        assert same(problem.retained.select(chosen), told)
    # Rows that did not change are the same bytes.
    others = numpy.flatnonzero(~numpy.isin(now.retained.example_ids, now.changed.after.example_ids))
    assert same(now.retained.select(others), once.retained.select(others))
    assert not same(now.retained, once.retained)
    assert not same(now.validation, once.validation)


def test_a_retrain_learns_the_new_prompts_in_the_order_of_the_old_lengths(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from e2urec_core import training

    given: dict[str, Any] = {}
    fit = training.fit_answers

    def noting(recommender: Any, rows: Prompts, *rest: Any, **more: Any) -> Any:
        given.update(more, rows=rows)
        return fit(recommender, rows, *rest, **more)

    monkeypatch.setattr(training, "fit_answers", noting)
    stages.train_retrained(folders["tokens"], folders["request"], BACKBONE, QUICK, Bench(0), tmp_path, retold=folders["retold"])
    before, now = prompts_of_split(folders["tokens"], "train"), prompts_of_split(folders["tokens"], "train", folders["retold"])
    assert same(given["rows"], now)
    assert not same(before, now)
    assert numpy.array_equal(given["ordered_by"], before.lengths)
    assert not numpy.array_equal(now.lengths, before.lengths)
    gone = set(prompts_of_part(folders["tokens"], folders["request"], "forgotten").example_ids)
    assert set(now.example_ids[given["left_out"]]) == gone


def test_rows_keep_their_batches_when_an_order_is_given(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    from e2urec_core import training
    from e2urec_core.data.tokens import load_tokenizer

    rows = [prompts_of_split(folders["tokens"], "train", retold) for retold in (None, folders["retold"])]
    drawn: list[list[list[int]]] = []
    part = training.Part

    def noting(prompts: Prompts, index: numpy.ndarray, total: int) -> Any:
        drawn[-1].append(index.tolist())
        return part(prompts, index, total)

    monkeypatch.setattr(training, "Part", noting)
    for told, ordered_by in ((rows[0], None), (rows[1], rows[0].lengths), (rows[1], None)):
        drawn.append([])
        recommender = BACKBONE.build(load_tokenizer(folders["tokens"]), 0)
        training.fit_answers(
            recommender, told, told, QUICK.model_copy(update={"batch_size": 4}), Bench(0), purpose="t", ordered_by=ordered_by
        )
    assert drawn[1] == drawn[0]
    assert drawn[2] != drawn[0]


def test_outputs_of_the_original_belong_to_the_rows_as_they_are_told_now(folders: dict[str, Path], tmp_path: Path) -> None:
    assert unlearned(folders, METHOD, tmp_path / "now") > 0
    with pytest.raises(StaleCache):
        unlearned(folders, METHOD, tmp_path / "once", retold=None)


def test_the_influence_step_takes_the_spillover_with_it(folders: dict[str, Path], tmp_path: Path) -> None:
    from e2urec_core.artifacts import file_digest

    rule = Ifru(panel_rows=16, power_iterations=3, damping_share=1)
    no_cache = dict.fromkeys(("augmented", "remembering", "teachers"))
    digests = set()
    for place, changes in (("now", {}), ("again", {}), ("without", {"retold": None})):
        unlearned(folders, rule, tmp_path / place, **no_cache, **changes)
        digests.add(file_digest(tmp_path / place / "model.safetensors"))
        facts = stages.facts(tmp_path / place)
        assert 0 < facts["trainable_parameters"] < facts["total_parameters"]
    assert len(digests) == 2


def test_every_model_is_scored_on_the_rows_as_they_are_told_now(folders: dict[str, Path], tmp_path: Path) -> None:
    models = [(name, folders["original"]) for name in ("original", "retrain", "do_nothing")]
    scored = {}
    for name, retold in (("now", folders["retold"]), ("once", None)):
        (tmp_path / name).mkdir()
        stages.evaluate(models, "do_nothing", folders["tokens"], folders["request"], Bench(0), tmp_path / name, retold=retold)
        scored[name] = stages.facts(tmp_path / name)["rows"]["original"]
    assert scored["now"]["log_loss"] != scored["once"]["log_loss"]
    assert scored["now"]["forget_auc"] == scored["once"]["forget_auc"]


def test_the_tokenizer_of_the_retold_rows_is_that_of_the_tokens(folders: dict[str, Path]) -> None:
    assert (folders["retold"] / "tokenizer.json").read_bytes() == (folders["tokens"] / "tokenizer.json").read_bytes()
    assert len(prompts_retold(folders["retold"])) == stages.facts(folders["request"])["counts"]["changed"]


def test_a_method_that_knows_users_alone_refuses_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = {"dataset": "sample", "backbone": "tiny-t5", "method": "do-nothing"}
    flags = {"forget.interactions-file": str(tmp_path / "named.csv")}
    assert build_run(words, None, flags).forget.interactions_file is not None
    monkeypatch.setattr(DoNothing, "knows_interactions", False)
    with pytest.raises(BadSetting, match="`do-nothing` forgets whole users alone"):
        build_run(words, None, flags)
    assert build_run(words, None, {}).forget.interactions_file is None
