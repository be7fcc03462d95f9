"""What it costs to ask a released recommender through MLflow, and what it saves that its adapter is merged.

The same prompts are answered by `Recommender.score`, by the MLflow model in this process, and by `mlflow models serve` on this machine,
in turns. Then by the network with its adapter merged, with the adapter beside it as peft leaves it, and with APA's stacked adapters.
Networks have random weights: what they have learned does not change how long they take.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.measuring import clock, emit, machine, median_ratio, progress, ready
from benchmarks.ours import rounded
from benchmarks.problem import Inputs, flags_of, settings_of, workspace
from benchmarks.server import ask, server
from benchmarks.shapes import SHAPES, backbone_of, tokenizer_of
from e2urec_core.artifacts import Bundle
from e2urec_core.data.places import BUNDLE
from e2urec_core.data.prompts import rendered
from e2urec_core.ensemble import of_adapters
from e2urec_core.ledger.records import Release
from e2urec_core.methods.base import Method
from e2urec_core.plugins import load as plugin
from e2urec_core.recommender import Recommender
from e2urec_core.release.bundle import write_bundle
from e2urec_core.release.card import ModelCard
from e2urec_core.release.probe import write_probe
from e2urec_core.settings import Lora
from e2urec_core.sharding.training import taken
from e2urec_core.store import Store
from tasks._desk import Desk
from tasks._servable import serving, write_servable
from tasks._tracking import Tracker
from tasks.promote import promote

BATCHES = (1, 32, 256)
KNOWN_ROWS = 256
"""Prompts that APA's stacked adapters compare a row with."""
Score = Callable[[list[str]], numpy.ndarray]
SAME = 1e-6


def directly(recommender: Recommender) -> Score:
    """Scores texts as the project does, tokenising included."""

    def score(texts: list[str]) -> numpy.ndarray:
        numbers = numpy.arange(len(texts))
        return recommender.score(recommender.prompts(numbers, numpy.zeros_like(numbers), texts))

    return score


def released(recommender: Recommender, inputs: Inputs, scratch: Path) -> Path:
    """The bundle of `recommender`, in a new folder below `scratch`."""
    model, place, rest = (scratch / name for name in ("model", "released", "rest"))
    for folder in (model, place / BUNDLE, rest):
        folder.mkdir(parents=True)
    recommender.save(model)
    rules, nobody = (inputs.run.prompt, inputs.run.history), "0" * 64
    write_probe(inputs.interactions, *rules, model, inputs.bench(), place / BUNDLE)
    facts: dict[str, Any] = dict.fromkeys(("model", "interactions", "examples", "tokens"), nobody)
    card = ModelCard(**facts, backbone="benchmark", method="none", parameters=recommender.count()["total_parameters"], seed=0, versions={})
    write_bundle(model, *rules, card, place)
    write_servable(place, nobody, serving(), rest)
    return place


def as_mlflow(folder: Path) -> Score:
    """Scores texts through the MLflow model, in this process."""
    import mlflow
    import pandas

    model = mlflow.pyfunc.load_model(str(folder))
    return lambda texts: model.predict(pandas.DataFrame({"prompt": texts}))["yes_probability"].to_numpy()


def over_http(address: str) -> Score:
    """Scores texts through the server at `address`; every request is a connection of its own."""

    def score(texts: list[str]) -> numpy.ndarray:
        status, told = ask(address, {"dataframe_records": [{"prompt": text} for text in texts]})
        assert status == 200, told
        return numpy.array([row["yes_probability"] for row in told["predictions"]])

    return score


def in_turns(ways: Mapping[str, Score], texts: list[str], size: int, rounds: int, read: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each way for each of `rounds` requests of `size` texts; the ways take turns in going first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        asked = [texts[(number * size + at) % len(texts)] for at in range(size)]
        for name in ways if number % 2 else reversed(ways):
            started = read()
            ways[name](asked)
            # The first round warms up.
            if number >= 0:
                seconds[name].append(read() - started)
    return seconds


def told_of(seconds: dict[str, list[float]], size: int) -> dict[str, dict[str, float]]:
    """Rows a second and latencies of each way."""
    return {
        name: {
            "rows_per_second": size / statistics.median(each),
            "p50_seconds": float(numpy.percentile(each, 50)),
            "p99_seconds": float(numpy.percentile(each, 99)),
        }
        for name, each in seconds.items()
    }


def ratios(measured: Mapping[int, dict[str, list[float]]], name: str, rival: str) -> dict[str, float]:
    """Seconds of one way over the rival's, by rows of a request."""
    return {str(size): median_ratio(zip(each[name], each[rival], strict=True)) for size, each in measured.items()}


def with_adapters(merged: Recommender, texts: list[str], inputs: Inputs, num_shards: int) -> dict[str, Score]:
    """The same network merged, under one adapter of peft, and under APA's stacked adapters."""
    lora = Lora()
    students = [merged.with_adapter(lora, seed) for seed in range(num_shards)]
    method: Any = plugin(Method.package, "apa").model_validate({"num_shards": num_shards, "lora": lora})
    knobs = {name: getattr(method, name) for name in ("aggregation", "temperature", "num_neighbours")}
    stacked = of_adapters(merged, [taken(each) for each in students], [True] * num_shards, lora, **knobs)
    known, numbers = texts[:KNOWN_ROWS], numpy.arange(min(KNOWN_ROWS, len(texts)))
    method.learn(stacked, stacked.prompts(numbers, numbers % 2, known), inputs.bench())
    return {"merged": directly(merged), "adapter": directly(students[0]), "stacked": directly(stacked)}


def until_answered(folder: Path, place: Path, text: str) -> dict[str, float]:
    """Seconds from the order to promote a second version until a server that is started then has answered from it.

    Args:
        folder: A bundle's files.
        place: Empty folder for a workspace.
        text: What is asked.
    """
    place.mkdir()
    desk = Desk.open(place, Store(place / "store"), Tracker(place), "e2urec", "benchmark")
    desk.registry.tracker.start("benchmark", {}, "")
    _registered(desk, folder, "first")
    second = _registered(desk, folder, "second")
    started = time.perf_counter()
    promote(desk, second)
    promoted = time.perf_counter()
    with server(f"models:/e2urec/{second}", desk.registry.tracker.address) as address:
        status, told = ask(address, {"dataframe_records": [{"prompt": text}]})
        assert status == 200, told
        answered = time.perf_counter()
    return {"promotion_seconds": promoted - started, "first_answer_seconds": answered - started}


def _registered(desk: Desk, folder: Path, note: str) -> int:
    with desk.store.workplace() as place:
        copy = Path(shutil.copytree(folder, place / "copy"))
        (copy / "note.txt").write_text(note)
        bundle = desk.store.publish(Bundle, copy, parents=(), rows=1, made_by="benchmark")
    champion, told = desk.releases.line().champion, {"bundle": bundle.digest, "model": "0" * 64, "kind": "Unlearned", "run": note}
    release = Release.model_validate({**told, "verdict": {}, "passed": True, "judged_against": champion or ""})
    desk.releases.add(release, {})
    version = desk.registry.register(bundle, desk.store.open(bundle), "", {})
    desk.releases.registered(bundle.digest, version)
    if champion is None:
        promote(desk, version)
    return version


def measured(shape: str, inputs: Inputs, scratch: Path, rounds: int, num_shards: int) -> dict[str, Any]:
    """One size of network."""
    tokenizer = tokenizer_of(inputs.tokens, shape)
    texts = [text for _, told in rendered(inputs.examples, inputs.interactions, inputs.run.prompt) for text in told.to_pylist()]
    recommender = backbone_of(shape).build(tokenizer, inputs.run.seed)
    folder = released(recommender, inputs, scratch / shape)
    with server(folder) as address:
        ways = {"direct": directly(recommender), "pyfunc": as_mlflow(folder), "http": over_http(address)}
        answers = {name: way(texts[:64]) for name, way in ways.items()}
        apart = max(float(numpy.abs(answers[name] - answers["direct"]).max()) for name in answers)
        assert apart <= SAME, f"the ways to ask differ by {apart}"
        # Another process answers, so seconds are those on the wall.
        through = {size: in_turns(ways, texts, size, rounds, time.perf_counter) for size in BATCHES}
    waited = until_answered(folder, scratch / f"{shape}-workspace", texts[0])
    forms = with_adapters(recommender, texts, inputs, num_shards)
    adapted = {size: in_turns(forms, texts, size, rounds, clock) for size in BATCHES}
    result = {
        "shape": shape,
        "http_ratio": ratios(through, "http", "direct"),
        "pyfunc_ratio": ratios(through, "pyfunc", "direct"),
        "adapter_ratio": ratios(adapted, "adapter", "merged"),
        "stacked_ratio": ratios(adapted, "stacked", "merged"),
        **waited,
        "largest_difference": apart,
        "by_rows": {str(size): {**told_of(through[size], size), **told_of(adapted[size], size)} for size in BATCHES},
    }
    progress(f"  {shape}: " + ", ".join(f"{name} {rounded(each, 2)}" for name, each in result.items() if name.endswith("_ratio")))
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description="Seconds through MLflow, and of adapters not merged.")
    parser.add_argument("--quick", action="store_true", help="One small network and fewer requests.")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="Networks to measure.")
    parser.add_argument("--rounds", type=int, help="Requests of each size.")
    parser.add_argument("--shards", type=int, default=4, help="Adapters that are stacked.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="A setting of the rows, such as dataset.num_users."
    )
    told = parser.parse_args(arguments)
    ready()
    torch.set_num_threads(1)
    shapes = told.shape or (("tiny",) if told.quick else ("tiny", "width-256"))
    rounds = told.rounds or (6 if told.quick else 40)
    with workspace(None) as scratch:
        inputs = Inputs(settings_of("sample", 0, flags_of(told, {"dataset.num_users": "60"})), scratch / "inputs")
        results = [measured(shape, inputs, scratch, rounds, told.shards) for shape in shapes]
    # The headline is the largest network.
    head = {name: each for name, each in results[-1].items() if name.endswith(("_ratio", "_seconds"))}
    emit(
        rounded(
            {
                **head,
                "headline_shape": results[-1]["shape"],
                "measured": results,
                "rounds": rounds,
                "shards": told.shards,
                "quick": told.quick,
                "machine": machine(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
