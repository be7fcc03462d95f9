"""Losses step by step, to the digit: a change of the science that was not meant to be one is seen here first.

After a change that was meant, write them anew and say why in the commit:

    E2UREC_REFRESH_GOLDEN=1 python -m pytest tests/golden

The numbers depend on nothing but this file and the sources: one thread, one seed, sizes of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy
import polars as pl
import pytest
import torch

from e2urec_core import stages
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.data.prompts import PromptRule, rendered
from e2urec_core.data.split import SplitRule
from e2urec_core.data.teacher_scoring import Stamp, write_forgotten, write_original
from e2urec_core.datasets.sample import Sample
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.settings import CacheRule, Lora, Training
from e2urec_core.training import Fitted, fit_answers

STORED = Path(__file__).with_name("losses.json")
REFRESH = "E2UREC_REFRESH_GOLDEN"
OTHER_MACHINE = 1e-4
"""Relative. Another BLAS or vector width sums in another order; some dozen steps of training let 1e-7 grow to about 1e-5."""
ZERO = 1e-6
"""Absolute: half a digit of what is stored, and what is left of a divergence that ought to be 0."""
SEED = 1
Curve = list[dict[str, float]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads meet in no fixed order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curve]:
    """The losses of a tiny original, a tiny augmented model and a tiny E2URec."""
    interactions, examples, request = (tmp_path_factory.mktemp(name) for name in ("interactions", "examples", "request"))
    ingest(Sample(num_users=24, ratings_per_user=10, data_seed=3), IngestRule(), interactions)
    cuts = SplitRule(train_share=0.6, validation_share=0.2, holdout_share=0)
    stages.split(interactions, HistoryRule(length=3, at_least=3), cuts, SEED, examples)
    stages.forget(interactions, examples, ForgetRule(share=0.25), SEED, request)
    prompts = [text for _, told in rendered(examples, interactions, PromptRule(template="reference")) for text in told.to_pylist()]
    rows = pl.read_parquet(examples / "examples.parquet").with_columns(prompt=pl.Series(prompts))
    rows = rows.join(pl.read_parquet(request / "parts.parquet"), on="example_id", how="left", maintain_order="left")
    sizes = {"width": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "inner_width": 32, "dropout": 0.1, "vocabulary": 320}
    train = rows.filter(rows["split"] == "train")
    backbone = TinyT5.model_validate(sizes)
    original = backbone.build(backbone.tokenizer(train["prompt"].to_list()), SEED)
    trained, retained, forgotten, validation = (
        original.prompts(part["example_id"].to_numpy(), part["label"].to_numpy(), part["prompt"].to_list())
        for part in (train, *(rows.filter(rows["part"] == name) for name in ("retained", "forgotten", "validation")))
    )
    bench = Bench(seed=SEED)
    schedule = {"weight_decay": 0.01, "warmup_share": 0.2, "schedule": "linear", "max_gradient_norm": 1.0, "patience": 0}
    told = {}
    training = Training(num_epochs=2, batch_size=16, learning_rate=1e-2, **schedule)
    told["original"] = fit_answers(original, retained, validation, training, bench, purpose="original")
    augmented = original.trainable()
    training = Training(num_epochs=1, batch_size=8, learning_rate=5e-3, **schedule)
    told["augmented"] = fit_answers(augmented, forgotten, validation, training, bench, purpose="augmented")
    folder, rule = tmp_path_factory.mktemp("teachers"), CacheRule(support="top", top=16, retained_per_forgotten=2, rows_per_group=16)
    stamps = {"forgotten": Stamp("1" * 64, "2" * 64, "3" * 64, "4" * 64), "retained": Stamp("1" * 64, "2" * 64, "5" * 64)}
    gone_rows = numpy.isin(trained.example_ids, forgotten.example_ids)
    write_original(folder, original, trained, gone_rows, rule, stamps["retained"], bench)
    write_forgotten(folder, original, augmented, forgotten, rule, stamps["forgotten"], bench)
    teachers = TeacherCache(folder, folder, {"forgotten": forgotten, "retained": retained}, stamps, rule)
    problem = Problem(original, retained, forgotten, validation, teachers)
    method = E2URec(
        suppression=2,
        forget_weight=0.6,
        losses="both",
        centring="none",
        warm_start="none",
        lora=Lora(rank=4, alpha=8, dropout=0.05, targets="attention"),
        training=Training(num_epochs=2, batch_size=8, learning_rate=1e-2, **schedule),
    )
    told["e2urec"] = method.unlearn(problem, bench).fitted
    return {name: curve_of(fitted) for name, fitted in told.items()}


def curve_of(fitted: Fitted) -> Curve:
    return [{"loss": round(point.loss, 6), **{name: round(part, 6) for name, part in point.parts.items()}} for point in fitted.curve]


@pytest.fixture(scope="module")
def stored(curves: dict[str, Curve]) -> dict[str, Curve]:
    if os.environ.get(REFRESH):
        lines = [
            f' "{name}": [\n' + ",\n".join(f"  {json.dumps(point)}" for point in curve) + "\n ]" for name, curve in sorted(curves.items())
        ]
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    loaded: dict[str, Curve] = json.loads(STORED.read_text())
    return loaded


@pytest.mark.parametrize("name", ["original", "augmented", "e2urec"])
def test_every_step_has_the_loss_it_had(curves: dict[str, Curve], stored: dict[str, Curve], name: str) -> None:
    assert len(curves[name]) == len(stored[name])
    for number, (now, then) in enumerate(zip(curves[name], stored[name], strict=True), start=1):
        assert now.keys() == then.keys(), f"step {number}"
        assert now == pytest.approx(then, rel=OTHER_MACHINE, abs=ZERO), f"step {number}; if that was meant: {REFRESH}=1"


def test_the_stored_curves_are_worth_watching(stored: dict[str, Curve]) -> None:
    assert sorted(stored) == ["augmented", "e2urec", "original"]
    for curve in stored.values():
        assert 4 <= len(curve) <= 40
        # Losses that move by far more than the tolerance, so that a wrong step cannot hide in it.
        assert len({point["loss"] for point in curve}) == len(curve)
        assert max(point["loss"] for point in curve) - min(point["loss"] for point in curve) > 100 * OTHER_MACHINE
    assert {frozenset(point) for point in stored["e2urec"]} == {frozenset({"loss", "forget", "answer", "remember"})}
