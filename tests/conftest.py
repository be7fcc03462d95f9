"""What all tests share: shapes that are executed, one thread, and a tiny problem that is made once a session.

Nothing here is imported before it is asked for, so that tests of tables alone do not wait for torch. What a session fixture gives is
shared: a test that changes it must work on a copy.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    import polars
    from tokenizers import Tokenizer

    from e2urec_core.backbones.base import Backbone
    from e2urec_core.data.batches import Prompts
    from e2urec_core.data.logit_cache import TeacherCache
    from e2urec_core.engine import Bench
    from e2urec_core.methods.base import Method, Problem
    from e2urec_core.recommender import Recommender
    from e2urec_core.settings import CacheRule

# Before anything imports them: from here on a tensor whose shape is not that of the signature is refused.
SHAPES_ARE_EXECUTED = install_import_hook(["e2urec_core.ops", "e2urec_core.data.batches"], "beartype.beartype")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples on every machine, and no folder of findings beside the sources.
hypothesis.settings.register_profile("house", deadline=None, max_examples=60, derandomize=True, database=None)
hypothesis.settings.load_profile("house")

# Two workers take files in this order, so that the dearest come first and at the end nobody is idle. The first one tells the story that
# others wait for; the second one needs none.
DEAREST_FIRST = (
    *("faults/test_night_kill.py", "faults/test_two_processes.py", "faults", "flows", "tasks", "erasure", "conformance", "core"),
    *("benchmarks", "contracts", "paper", "golden", "house"),
)

# Of backbones that start from nothing.
SMALL_BACKBONE = {"width": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "inner_width": 32, "vocabulary": 320}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files into the order of `DEAREST_FIRST`, and leaves the order within each as it is."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(here)
        return next((at for at, way in enumerate(DEAREST_FIRST) if path.is_relative_to(way)), len(DEAREST_FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def tiny_interactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stored interactions of forty generated users with about twelve ratings each."""
    from e2urec_core.data.ingest import IngestRule, ingest
    from e2urec_core.datasets.sample import Sample

    folder = tmp_path_factory.mktemp("interactions")
    ingest(Sample(num_users=40, ratings_per_user=12), IngestRule(), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folders(tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders as stages leave them: the examples', and the request's with every example's part; every fifth user is forgotten."""
    from e2urec_core import stages
    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.split import SplitRule

    examples, request = (tmp_path_factory.mktemp(name) for name in ("examples", "request"))
    stages.split(tiny_interactions, HistoryRule(length=4, at_least=3), SplitRule(), 0, examples)
    stages.forget(tiny_interactions, examples, ForgetRule(share=0.2), 0, request)
    return examples, request


@pytest.fixture(scope="session")
def tiny_examples(tiny_interactions: Path, tiny_folders: tuple[Path, Path]) -> polars.DataFrame:
    """Their examples with `prompt` and `part`."""
    import polars as pl

    from e2urec_core.data.prompts import PromptRule, rendered

    examples, request = tiny_folders
    prompts = [text for _, told in rendered(examples, tiny_interactions, PromptRule()) for text in told.to_pylist()]
    rows = pl.read_parquet(examples / "examples.parquet").with_columns(prompt=pl.Series(prompts))
    return rows.join(pl.read_parquet(request / "parts.parquet"), on="example_id", how="left", maintain_order="left")


@pytest.fixture(scope="session")
def training_prompts(tiny_examples: polars.DataFrame) -> list[str]:
    """The prompts of the tiny training rows."""
    texts: list[str] = tiny_examples.filter(tiny_examples["split"] == "train")["prompt"].to_list()
    return texts


@pytest.fixture(scope="session")
def small_checkpoint(training_prompts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a small random checkpoint, to be left as it is: `small_checkpoint("causal_lm:llama", seed=0)`."""
    from small_checkpoints import write_checkpoint

    written: dict[tuple[str, int], Path] = {}

    def folder(variant: str, seed: int = 0) -> Path:
        if (variant, seed) not in written:
            place = tmp_path_factory.mktemp("checkpoint") / variant.replace(":", "-")
            written[variant, seed] = write_checkpoint(variant, place, training_prompts, seed)
        return written[variant, seed]

    return folder


@pytest.fixture(scope="session")
def small_backbone(small_checkpoint: Callable[..., Path]) -> Callable[..., Backbone]:
    """The smallest backbone: `small_backbone("tiny_t5")`, `small_backbone("causal_lm:gpt2", seed=0)` from a drawn checkpoint."""
    from e2urec_core.backbones.base import Backbone

    def settings(variant: str, seed: int = 0, **knobs: object) -> Backbone:
        kind, _, name = variant.partition(":")
        small = {"checkpoint": str(small_checkpoint(variant, seed)), "dropout": 0.0} if name else SMALL_BACKBONE
        return Backbone.model_validate({"kind": kind, **small, **knobs})

    return settings


@pytest.fixture(scope="session")
def build_tiny(small_backbone: Callable[..., Backbone], training_prompts: list[str]) -> Callable[..., Recommender]:
    """Builds an untrained recommender of the smallest size: `build_tiny("tiny_t5", seed=0)`."""
    tokenizers: dict[Backbone, Tokenizer] = {}

    def build(variant: str, seed: int = 0, **knobs: object) -> Recommender:
        backbone = small_backbone(variant, seed, **knobs)
        if backbone not in tokenizers:
            tokenizers[backbone] = backbone.tokenizer(training_prompts)
        return backbone.build(tokenizers[backbone], seed)

    return build


@pytest.fixture(scope="session")
def rows_of(tiny_examples: polars.DataFrame) -> Callable[[Recommender, str], Prompts]:
    """Tokenises the examples of one part, or of all training rows: `rows_of(recommender, "forgotten")`, `rows_of(recommender, "train")`."""

    from e2urec_core.data.tokens import user_numbers

    def rows(recommender: Recommender, part: str) -> Prompts:
        chosen = tiny_examples.filter(tiny_examples["split" if part == "train" else "part"] == part)
        prompts = recommender.prompts(chosen["example_id"].to_numpy(), chosen["label"].to_numpy(), chosen["prompt"].to_list())
        return dataclasses.replace(prompts, users=user_numbers(chosen["user_id"].to_arrow().cast("string")).to_numpy())

    return rows


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Seed 3 on the CPU, and nobody watching."""
    from e2urec_core.engine import Bench

    return Bench(seed=3)


@pytest.fixture(scope="session")
def cache_teachers(rows_of: Callable[[Recommender, str], Prompts]) -> Callable[..., TeacherCache]:
    """Runs both teachers on the tiny rows and opens what they said: `cache_teachers(folder, original, augmented, rule, bench)`."""
    from e2urec_core.data.logit_cache import TeacherCache
    from e2urec_core.data.teacher_scoring import Stamp, write_forgotten, write_original

    def cache(folder: Path, original: Recommender, augmented: Recommender, rule: CacheRule, bench: Bench) -> TeacherCache:
        import numpy

        rows, train = {part: rows_of(original, part) for part in ("forgotten", "retained")}, rows_of(original, "train")
        gone = numpy.isin(train.example_ids, rows["forgotten"].example_ids)
        stamps = {"forgotten": Stamp("1" * 64, "2" * 64, "3" * 64, "4" * 64), "retained": Stamp("1" * 64, "2" * 64, "5" * 64)}
        write_original(folder, original, train, gone, rule, stamps["retained"], bench)
        write_forgotten(folder, original, augmented, rows["forgotten"], rule, stamps["forgotten"], bench)
        return TeacherCache(folder, folder, rows, stamps, rule)

    return cache


@pytest.fixture(scope="session")
def tiny_teachers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the teacher cache of `tiny_problem` lies."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="session")
def tiny_problem(
    build_tiny: Callable[..., Recommender],
    rows_of: Callable[[Recommender, str], Prompts],
    cache_teachers: Callable[..., TeacherCache],
    bench: Bench,
    tiny_teachers_folder: Path,
) -> Problem:
    """A trained original, its rows and its teacher cache: what a method is given."""
    from e2urec_core.methods.base import Problem
    from e2urec_core.settings import CacheRule, Training
    from e2urec_core.training import fit_answers

    short = Training(num_epochs=2, batch_size=16, learning_rate=1e-2)
    original = build_tiny("tiny_t5")
    retained, forgotten, validation = (rows_of(original, part) for part in ("retained", "forgotten", "validation"))
    fit_answers(original, retained, validation, Training(num_epochs=2, batch_size=32, learning_rate=1e-2), bench, purpose="original")
    augmented = original.trainable()
    fit_answers(augmented, forgotten, validation, Training(num_epochs=2, batch_size=16, learning_rate=5e-3), bench, purpose="augmented")
    rule = CacheRule(rows_per_group=16, retained_per_forgotten=4)
    cache = cache_teachers(tiny_teachers_folder, original, augmented, rule, bench)
    return Problem(original, retained, forgotten, validation, cache, fresh=lambda seed: build_tiny("tiny_t5", seed), training=short)


@pytest.fixture(scope="session")
def with_shards(
    rows_of: Callable[[Recommender, str], Prompts], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Method, Problem, Bench], Problem]:
    """A problem with the shards that a method needs, if any, trained on all training rows: `with_shards(method, problem, bench)`."""
    from e2urec_core.sharding.system import ShardsFolder, write_shards

    made: dict[tuple[str, str, int], Path] = {}

    def problem_of(method: Method, problem: Problem, bench: Bench) -> Problem:
        sharding = method.sharding(problem.training)
        if sharding is None:
            return problem
        key = sharding.model_dump_json(), str(id(problem.original)), bench.seed
        if key not in made:
            made[key] = tmp_path_factory.mktemp("shards")
            assert problem.fresh is not None
            rows = rows_of(problem.original, "train")
            _, told = write_shards(made[key], rows, problem.validation, sharding, problem.fresh, problem.original, bench)
            (made[key] / "facts.json").write_text(json.dumps(told))
        return dataclasses.replace(problem, shards=ShardsFolder(made[key]))

    return problem_of


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Makes empty schemas in a PostgreSQL database and says their URLs."""
    import ledgers

    if not ledgers.postgres_is_here():
        pytest.skip("PostgreSQL's programs or psycopg are not installed")
    with ledgers.postgres_server() as schema:
        yield schema


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder in memory, where the machine has one: for what waits for the disk often and is not about the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, quick_path: Path) -> Callable[[], Path | str]:
    """Gives places where ledgers may lie that are not there yet, each one once, in either database."""
    if request.param == "postgresql":
        schema: Callable[[], str] = request.getfixturevalue("postgres")
        return schema
    numbers = itertools.count()
    return lambda: quick_path / f"ledger-{next(numbers)}" / "requests.db"


@pytest.fixture
def place(places: Callable[[], Path | str]) -> Path | str:
    """One such place."""
    return places()
