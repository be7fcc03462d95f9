"""The main story from a checkpoint's folder through the command, and what is refused before anything is computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
from e2urec_console import STAGES, Answer, Console, digests, states

from e2urec_core.errors import BadSetting
from flows.runs import build_run

# fmt: off
QUICK = (
    "--dataset.num-users", "60", "--dataset.ratings-per-user", "12", "--dataset.polluted-share", "0.3", "--split.holdout-share", "0.2",
    "--training.num-epochs", "1", "--augment.num-epochs", "1", "--method.training.num-epochs", "1", "--evaluate.floor-seeds", "0",
)
# fmt: on
SERVED = 1e-6
"""Batches differ, and with them the order of sums in 32 bits."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The command in a workspace of this file's own."""
    console = Console(tmp_path_factory.mktemp("checkpoints") / "workspace")
    yield console
    console.close()


def told(console: Console, backbone: str, folder: Path, *flags: str) -> Answer:
    return console("unlearn", "sample", backbone, "e2urec", "--backbone.checkpoint", folder, *QUICK, *flags)


@pytest.mark.long
def test_a_network_without_an_encoder_goes_all_the_way_and_is_served(
    console: Console, small_checkpoint: Callable[..., Path], training_prompts: list[str], tmp_path: Path
) -> None:
    import mlflow
    import pandas as pd

    from e2urec_core.recommender import load

    folder = Path(shutil.copytree(small_checkpoint("causal_lm:llama"), tmp_path / "llama"))
    answer = told(console, "causal-lm", folder)
    assert answer.code == 0, answer.stderr
    first = console.last()
    assert states(first) == dict.fromkeys(STAGES, "completed")
    made = next(path for path in (console.workspace / "store").rglob("answers.json") if digests(first)["unlearn"][:12] in str(path))
    recommender = load(made.parent)
    assert type(recommender.network).__name__ == "LlamaForCausalLM"

    mlflow.set_tracking_uri(f"sqlite:///{console.workspace / 'mlflow.db'}")
    texts = training_prompts[:70]
    model = mlflow.pyfunc.load_model(f"runs:/{first['tracking_run']}/recommender/{digests(first)['bundle'][:12]}")
    served = numpy.asarray(model.predict(pd.DataFrame({"prompt": texts})), dtype=float).ravel()
    own = recommender.score(recommender.prompts(numpy.arange(70), numpy.zeros(70, dtype=numpy.int8), texts))
    assert len({len(row) for row in texts}) > 10
    assert own.std() > 100 * SERVED
    numpy.testing.assert_allclose(served, own, atol=SERVED, rtol=0)

    # The same files elsewhere are the same checkpoint; only the report names the place.
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    assert told(console, "causal-lm", moved).code == 0
    second = console.last()
    assert {stage for stage, state in states(second).items() if state != "cached"} == {"report"}
    # Another checkpoint in that place is another one.
    shutil.rmtree(moved)
    shutil.copytree(small_checkpoint("causal_lm:llama", seed=1), moved)
    assert told(console, "causal-lm", moved).code == 0
    third = console.last()
    assert {stage for stage, state in states(third).items() if state == "cached"} == {"ingest", "split", "forget"}
    assert digests(third)["train-original"] != digests(first)["train-original"]


@pytest.mark.long
def test_a_published_encoder_decoder_goes_all_the_way_with_its_encoder_states_cached(
    console: Console, small_checkpoint: Callable[..., Path]
) -> None:
    flags = ("--method.lora.layers", "decoder", "--augment.trains", "adapter", "--execution", "process")
    answer = told(console, "t5", small_checkpoint("t5:flan"), *flags)
    assert answer.code == 0, answer.stderr
    assert console.last()["state"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "fact"),
    [
        ((), "BadSetting: this backbone starts from a checkpoint and was given none"),
        (("--backbone.checkpoint", "./nowhere"), "BadSetting: there is no folder `./nowhere`"),
        (
            ("--backbone.checkpoint", "somebody/some-network"),
            "BadSetting: `somebody/some-network` is no folder, is not in the hub's cache, and the hub cannot be reached",
        ),
    ],
)
def test_a_checkpoint_that_is_not_there_is_one_sentence_and_a_flag_before_any_stage(
    console: Console, flags: tuple[str, ...], fact: str
) -> None:
    answer = console("unlearn", "sample", "causal-lm", "e2urec", *flags)
    assert answer.code == 2
    said, hint = answer.stderr.splitlines()
    assert said == fact
    assert hint.startswith("hint: ")
    assert "`--backbone.checkpoint FOLDER`" in hint


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"method.lora.layers": "decoder"}, "`--method.lora.layers decoder`"),
        ({"augment.trains": "adapter", "augment.lora.layers": "decoder"}, "`--augment.lora.layers decoder`"),
        ({"cache.encoder-states": "true"}, "`--cache.encoder-states true`"),
    ],
)
def test_what_needs_an_encoder_is_refused_before_any_stage(flags: dict[str, str], said: str) -> None:
    words = {"dataset": "sample", "method": "e2urec"}
    build_run({**words, "backbone": "t5"}, None, flags)
    with pytest.raises(BadSetting) as refused:
        build_run({**words, "backbone": "causal-lm"}, None, flags)
    assert refused.value.fact == f"{said} is refused: `causal-lm` has no encoder"


@pytest.mark.parametrize("backbone", ["t5", "bart", "causal-lm"])
@pytest.mark.parametrize("preset", ["demo", "default", "smoke", "paper"])
def test_every_preset_has_settings_for_a_checkpoint(backbone: str, preset: str) -> None:
    run = build_run({"dataset": "sample", "backbone": backbone, "method": "e2urec"}, preset, {"backbone.checkpoint": "folder"})
    assert run.backbone.canonical()["checkpoint"] == "folder"
