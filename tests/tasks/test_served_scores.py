"""What MLflow serves says what the project says, of every backbone and every kind of ensemble, and where the project is not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
from small_checkpoints import variants

from e2urec_core.backbones.base import Backbone
from e2urec_core.data.batches import Prompts
from e2urec_core.data.places import BUNDLE, PROBE
from e2urec_core.engine import Bench
from e2urec_core.plugins import kinds
from e2urec_core.recommender import Recommender
from tests.released import own_scores, release
from tests.small_ensembles import adapted, whole

pytestmark = pytest.mark.slow

Build = Callable[..., Recommender]
Rows = Callable[[Recommender, str], Prompts]
ROUNDED = 1e-6
"""Sums of 32-bit floats in another order."""

ALONE = """
import json, sys
for name in ("e2urec_core", "tasks", "flows", "data_contracts"):
    sys.modules[name] = None
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = json.loads(sys.argv[2])
print(json.dumps(model.predict(pandas.DataFrame(rows))["yes_probability"].tolist()))
"""


def loaded(folder: Path) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(str(folder))


def served(folder: Path, texts: list[str]) -> numpy.ndarray:
    import pandas

    return loaded(folder).predict(pandas.DataFrame({"prompt": texts}))["yes_probability"].to_numpy()


@pytest.mark.parametrize("variant", variants(kinds(Backbone.package)))
def test_every_backbone_is_served_as_it_scores(
    variant: str, build_tiny: Build, training_prompts: list[str], tiny_interactions: Path, tmp_path: Path
) -> None:
    recommender, texts = stretched(build_tiny(variant)), training_prompts[:70]
    told = served(release(recommender, tiny_interactions, tmp_path), texts)
    own = own_scores(recommender, texts)
    assert told == pytest.approx(own, abs=ROUNDED, rel=0)
    assert own.std() > 100 * ROUNDED, "answers must depend on the prompt"


def stretched(recommender: Recommender) -> Recommender:
    """With weights so large that answers differ."""
    import torch

    with torch.no_grad():
        for weight in recommender.network.parameters():
            if weight.dim() > 1:
                weight.mul_(0.2 / max(1e-3, weight.std().item()))
    return recommender


@pytest.mark.parametrize("variant", ["tiny_t5", "tiny_bart", "causal_lm:gpt2", "causal_lm:llama"])
@pytest.mark.parametrize("how", ["logits", "probabilities", "gate", "nondecomposed", "decomposed"])
def test_every_kind_of_ensemble_is_served_as_it_scores(
    how: str,
    variant: str,
    build_tiny: Build,
    rows_of: Rows,
    bench: Bench,
    training_prompts: list[str],
    tiny_interactions: Path,
    tmp_path: Path,
) -> None:
    if how in ("nondecomposed", "decomposed"):
        ensemble = adapted(build_tiny, rows_of(build_tiny(variant, 1), "validation"), bench, variant, how)  # type: ignore[arg-type]
    else:
        ensemble = whole(build_tiny, how, variant)
    stretched(ensemble)
    texts = training_prompts[:70]
    own = own_scores(ensemble, texts)
    assert served(release(ensemble, tiny_interactions, tmp_path), texts) == pytest.approx(own, abs=ROUNDED, rel=0)
    assert own.std() > 100 * ROUNDED, "answers must depend on the prompt"


@pytest.mark.parametrize("scaled", [True, False])
def test_outputs_are_scaled_where_the_network_scales_them(
    build_tiny: Build, training_prompts: list[str], tiny_interactions: Path, tmp_path: Path, scaled: bool
) -> None:
    recommender, texts = stretched(build_tiny("tiny_t5")), training_prompts[:30]
    network: Any = recommender.network
    network.config.scale_decoder_outputs = not scaled
    other = own_scores(recommender, texts)
    network.config.scale_decoder_outputs = scaled
    own = own_scores(recommender, texts)
    assert abs(own - other).max() > 0.001
    assert served(release(recommender, tiny_interactions, tmp_path), texts) == pytest.approx(own, abs=ROUNDED, rel=0)


def test_words_that_a_network_leans_to_are_leant_to(
    build_tiny: Build, training_prompts: list[str], tiny_interactions: Path, tmp_path: Path
) -> None:
    recommender, texts = stretched(build_tiny("tiny_bart")), training_prompts[:30]
    network: Any = recommender.network
    before = own_scores(recommender, texts)
    network.final_logits_bias[:, recommender.answers.yes_id] = 0.5
    own = own_scores(recommender, texts)
    assert abs(own - before).max() > 0.001
    assert served(release(recommender, tiny_interactions, tmp_path), texts) == pytest.approx(own, abs=ROUNDED, rel=0)


@pytest.fixture(scope="module")
def released(
    build_tiny: Build, rows_of: Rows, bench: Bench, tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Recommender, Path]]:
    """A network alone and an ensemble of adapters, each with its bundle."""
    one = build_tiny("tiny_t5")
    many = adapted(build_tiny, rows_of(one, "validation"), bench)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "many")}
    return {name: (each, release(each, tiny_interactions, folders[name])) for name, each in (("one", one), ("many", many))}


# That ensembles are served as they score: above.
@pytest.mark.parametrize("name", ["one", pytest.param("many", marks=pytest.mark.long)])
def test_it_answers_alike_where_nothing_of_this_project_can_be_imported(name: str, released: dict[str, tuple[Recommender, Path]]) -> None:
    recommender, folder = released[name]
    rows = json.loads((folder / BUNDLE / PROBE).read_text())["rows"]
    asked = json.dumps([{field: row[field] for field in ("profile", "history", "candidate")} for row in rows])
    with tempfile.TemporaryDirectory() as elsewhere:
        command = [sys.executable, "-I", "-c", ALONE, str(folder), asked]
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == pytest.approx(own_scores(recommender, [row["prompt"] for row in rows]).tolist(), abs=ROUNDED, rel=0)
    assert told == pytest.approx([row["yes_probability"] for row in rows], abs=ROUNDED, rel=0)


def test_two_models_answer_in_one_process_each_with_its_own_weights(
    released: dict[str, tuple[Recommender, Path]], training_prompts: list[str]
) -> None:
    import pandas

    asked = pandas.DataFrame({"prompt": training_prompts[:20]})
    models = {name: loaded(folder) for name, (_, folder) in released.items()}
    for name, (recommender, _) in released.items():
        own = own_scores(recommender, training_prompts[:20])
        assert models[name].predict(asked)["yes_probability"].to_numpy() == pytest.approx(own, abs=ROUNDED, rel=0)


def test_requests_that_come_at_once_do_not_mix(released: dict[str, tuple[Recommender, Path]], training_prompts: list[str]) -> None:
    import pandas

    model, asked = loaded(released["many"][1]), [pandas.DataFrame({"prompt": training_prompts[at : at + 9]}) for at in range(24)]
    alone = [model.predict(frame)["yes_probability"].tolist() for frame in asked]
    with ThreadPoolExecutor(8) as threads:
        together = [frame["yes_probability"].tolist() for frame in threads.map(model.predict, asked)]
    assert together == alone
