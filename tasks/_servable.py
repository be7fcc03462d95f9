"""Makes a folder that holds a released recommender's files one that MLflow's own tools load and serve.

Nothing in it tells where or when it was made: the same recommender gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from e2urec_core.artifacts import file_digest
from e2urec_core.data.places import BUNDLE, PROBE
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

PACKAGES = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas")
CODE, NETWORKS = (Path(__file__).with_name(name) for name in ("_served_model.py", "_served_networks.py"))
PROMPT_EXAMPLE = "serving_prompt_example.json"
"""A request of ready prompts; MLflow's own `serving_input_example.json` is one of a history and candidates."""
MODEL_NOTE = "MLmodel"
NO_TIME = "1970-01-01 00:00:00.000000"


class Serving(Settings):
    """With what a recommender is served; a part of what decides a bundle's bytes."""

    code: tuple[str, ...] = Field(min_length=2, max_length=2)
    """SHA-256 of the served model's two files."""
    requirements: tuple[str, ...]
    """Packages that serving takes, each with the version that it was tested with."""


def serving() -> Serving:
    """The code that lies here and the versions that are installed here."""
    requirements = tuple(f"{package}=={version(package).split('+')[0]}" for package in PACKAGES)
    return Serving(code=(file_digest(CODE), file_digest(NETWORKS)), requirements=requirements)


def signature() -> ModelSignature:
    """What a request may hold, and what is answered.

    `history` and `candidates` are open: typed, mlflow 3.17 refuses `"rating": 4`, as a whole number, refuses a row whose history is
    missing beside one that has it, and turns a null among the candidates into a title. The served model checks them itself.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    asked = [ColSpec(DataType.string, name, required=False) for name in ("prompt", "profile", "candidate")]
    asked += [ColSpec(AnyType(), name, required=False) for name in ("history", "candidates")]
    ranked = {"row": DataType.long, "rank": DataType.long, "candidate": DataType.string}
    answered = [*(ColSpec(kind, name, required=False) for name, kind in ranked.items()), ColSpec(DataType.double, "yes_probability")]
    return ModelSignature(Schema(asked), Schema(answered), ParamSchema([ParamSpec("top", DataType.long, 0)]))


def options(bundle: Path, code: Path, requirements: tuple[str, ...]) -> dict[str, Any]:
    """What MLflow's `save_model` and `log_model` are told: one model made from code, safetensors and JSON, no pickle.

    Args:
        bundle: The recommender's files.
        code: Empty folder, into which the served model's files are copied under their served names.
        requirements: Packages with their versions.
    """
    copies = [shutil.copyfile(file, code / file.name.removeprefix("_")) for file in (CODE, NETWORKS)]
    return {
        "python_model": str(copies[0]),
        "artifacts": {"bundle": str(bundle), "networks": str(copies[1])},
        "signature": signature(),
        "pip_requirements": list(requirements),
    }


def write_servable(place: Path, digest: str, held: Serving, scratch: Path) -> None:
    """Write into `place`, beside its `artifacts/bundle`, the files with which MLflow's own tools load and serve it.

    Args:
        place: Folder that `e2urec_core.release.bundle.write_bundle` has filled.
        digest: Of the recommender; the model's number in MLflow is its first half.
        held: With what it is served.
        scratch: Empty folder on the same disk.
    """
    import mlflow

    made, stand_in, code = (scratch / name for name in ("made", "bundle", "code"))
    for folder in (stand_in, code):
        folder.mkdir()
    # MLflow copies what it is given: it is given one small file, and the weights stay where they are.
    (stand_in / PROBE).write_text("{}")
    structured, ready = examples(place / BUNDLE)
    # MLflow asks for type hints, which it would read as a signature; ours is given. It resets filters, hence the recording.
    with warnings.catch_warnings(record=True):
        mlflow.pyfunc.save_model(path=str(made), input_example=structured, **options(stand_in, code, held.requirements))
    (made / "artifacts" / NETWORKS.name.removeprefix("_")).rename(place / "artifacts" / NETWORKS.name.removeprefix("_"))
    shutil.rmtree(made / "artifacts")
    for file in made.iterdir():
        file.rename(place / file.name)
    (place / PROMPT_EXAMPLE).write_text(json.dumps(ready, sort_keys=True, indent=2) + "\n")
    _forget_where_and_when(place, digest)


def examples(bundle: Path) -> tuple[Any, Mapping[str, Any]]:
    """A request of each form, made of the probe's invented rows: a frame of a history with candidates, and JSON of a ready prompt."""
    import pandas

    rows = json.loads((bundle / PROBE).read_text())["rows"]
    first = next((row for row in rows if row["history"]), rows[0])
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))[:3]
    structured = pandas.DataFrame([{"profile": first["profile"], "history": first["history"], "candidates": candidates}])
    return structured, {"dataframe_records": [{"prompt": first["prompt"]}]}


def _forget_where_and_when(place: Path, digest: str) -> None:
    """Take folders, the clock and drawn numbers out of what MLflow has noted."""
    from mlflow.models import Model

    noted = Model.load(str(place))
    flavour = noted.flavors["python_function"]
    flavour["model_code_path"] = Path(flavour["model_code_path"]).name
    for artifact in flavour["artifacts"].values():
        artifact["uri"] = artifact["path"]
    noted.run_id, noted.model_uuid, noted.utc_time_created = None, digest[:32], NO_TIME
    noted.model_size_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file() and file.name != MODEL_NOTE)
    noted.save(str(place / MODEL_NOTE))
