"""After a deletion every shard is, bit for bit, what it would be if the user had never been there; and what cannot be done is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.ensemble import AdaptedNetwork, Ensemble, MemberNetworks
from e2urec_core.errors import BadRequest, BadSetting, StaleCache
from e2urec_core.methods.base import Changed, Method, Outcome, Problem
from e2urec_core.methods.rec_eraser import RecEraser
from e2urec_core.ops.shards import gate_weights
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import derived_seed
from e2urec_core.settings import Lora, Sharding, Training
from e2urec_core.sharding.partition import Partition, divide, users_of
from e2urec_core.sharding.system import ShardsFolder, write_shards
from e2urec_core.training import fit_answers
from tests.by_default import few

# Judged so often that a validation row of somebody else would show in which weights are the best.
PATIENT = Training(num_epochs=4, batch_size=12, learning_rate=5e-2, schedule="constant", patience=4, check_every=1)
ADAPTER = {"training": PATIENT.canonical(), "lora": {"rank": 3, "targets": "all_linear"}}
METHODS: dict[str, dict[str, Any]] = {
    "sisa": {"kind": "sisa", "num_shards": 3},
    "sisa in slices": {"kind": "sisa", "num_shards": 2, "num_slices": 3},
    "rec_eraser": {"kind": "rec_eraser", "num_shards": 3},
    "apa": {"kind": "apa", "num_shards": 3, **ADAPTER},
}
WithShards = Callable[[Method, Problem, Bench], Problem]
RowsOf = Callable[[Recommender, str], Prompts]


def method_of(what: str, **knobs: Any) -> Method:
    return Method.model_validate({**METHODS[what], **knobs})


def without(rows: Prompts, users: list[int]) -> Prompts:
    return rows.select(numpy.flatnonzero(~numpy.isin(users_of(rows), users)))


def only(rows: Prompts, users: Any) -> Prompts:
    return rows.select(numpy.flatnonzero(numpy.isin(users_of(rows), users)))


@pytest.fixture(scope="module")
def train(tiny_problem: Problem, rows_of: RowsOf) -> Prompts:
    return rows_of(tiny_problem.original, "train")


@pytest.fixture(scope="module")
def everybody(tiny_problem: Problem, rows_of: RowsOf) -> Prompts:
    """Validation rows of forgotten users too."""
    parts = [rows_of(tiny_problem.original, part) for part in ("validation", "forgotten_validation")]
    assert len(parts[1]) > 0
    return joined(*parts)


def joined(*parts: Prompts) -> Prompts:
    starts = numpy.concatenate([[0], numpy.cumsum(numpy.concatenate([part.lengths for part in parts]))])
    fields = [numpy.concatenate([getattr(part, name) for part in parts]) for name in ("example_ids", "labels", "flat")]
    return Prompts(*fields, starts, numpy.concatenate([users_of(part) for part in parts]))


@pytest.fixture(scope="module")
def problem(tiny_problem: Problem) -> Problem:
    return dataclasses.replace(tiny_problem, teachers=None, training=PATIENT)


@pytest.fixture(scope="module")
def system(problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The sharded system of a method, trained once on everybody's rows: `system("sisa")`."""
    made: dict[str, ShardsFolder] = {}

    def folder(what: str) -> ShardsFolder:
        if what not in made:
            place, sharding = tmp_path_factory.mktemp("shards"), method_of(what).sharding(PATIENT)
            assert sharding is not None
            assert problem.fresh is not None
            _, told = write_shards(place, train, everybody, sharding, problem.fresh, problem.original, bench)
            (place / "facts.json").write_text(json.dumps(told))
            made[what] = ShardsFolder(place)
        return made[what]

    return folder


def asked(problem: Problem, train: Prompts, everybody: Prompts, shards: ShardsFolder, users: list[int]) -> Problem:
    """The problem whose forgotten users are `users`."""
    rows = {"retained": without(train, users), "forgotten": only(train, users), "validation": without(everybody, users)}
    return dataclasses.replace(problem, shards=shards, **rows)


def from_scratch(
    problem: Problem, sharding: Sharding, shard: int, partition: Partition, rows: Prompts, judged: Prompts, bench: Bench
) -> Any:
    """One shard trained by hand on rows that never held the forgotten users; the weights after its last slice."""
    assert problem.fresh is not None
    student = problem.fresh(bench.seed)
    student = student.with_adapter(sharding.lora, bench.seed) if sharding.lora else student.trainable()
    # Of 4 passes, 1 slice takes 4 and 3 slices take 2 each.
    passes, users = {1: 4, 3: 2}[sharding.num_slices], []
    for piece in range(sharding.num_slices):
        new = partition.users[(partition.shards == shard) & (partition.slices == piece)]
        users += new.tolist()
        if not len(only(rows, new)):
            continue
        mine, judges = only(rows, users), only(judged, users)
        schedule = sharding.training.model_copy(update={"num_epochs": passes, "patience": PATIENT.patience if len(judges) else 0})
        own = dataclasses.replace(bench, seed=derived_seed(bench.seed, f"shard-{shard}-slice-{piece}"))
        fit_answers(student, mine, judges, schedule, own, purpose=f"shard {shard}")
    return {name: weight.detach() for name, weight in student.network.named_parameters() if weight.requires_grad}


def member(outcome: Outcome, at: int) -> dict[str, torch.Tensor]:
    """The weights of one member of an unlearned ensemble, named as in training."""
    ensemble = outcome.recommender
    assert isinstance(ensemble, Ensemble)
    if isinstance(ensemble.network, AdaptedNetwork):
        found = {}
        for place, adapter in zip(ensemble.combining.places, ensemble.network.adapters, strict=True):
            for letter, factors in (("A", adapter.down), ("B", adapter.up)):
                found[f"base_model.model.{place}.lora_{letter}.default.weight"] = [*factors][at].detach()  # type: ignore[operator]
        return found
    assert isinstance(ensemble.network, MemberNetworks)
    return {name: weight.detach() for name, weight in ensemble.network.members[at].named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def one_user(shards: ShardsFolder, shard: int, piece: int) -> list[int]:
    """A user with several rows in the last place that is looked at, as the others' order must not depend on it."""
    return [int(shards.partition.members(shard, piece)[0])]


CASES = [("sisa", 0), ("sisa in slices", 0), ("sisa in slices", 1), ("sisa in slices", 2), ("rec_eraser", 0), ("apa", 0)]
# With the two of `test_several_users...`, every method.
SOME_CASES = {("sisa in slices", 1), ("apa", 0)}


@pytest.mark.parametrize(("what", "piece"), few(SOME_CASES, CASES))
def test_a_touched_shard_is_trained_as_if_the_user_had_never_been_and_the_others_are_the_stored_files(
    what: str, piece: int, problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system(what)
    users = one_user(shards, 1, piece)
    here = asked(problem, train, everybody, shards, users)
    outcome = method_of(what).unlearn(here, bench)
    last, number = shards.sharding.num_slices - 1, shards.sharding.num_shards
    assert outcome.facts == {"shards": {"total": number, "retrained": [1], "left_out": []}}
    places = shards.partition.among(numpy.setdiff1d(shards.partition.users, users))
    for shard in range(number):
        expected = from_scratch(here, shards.sharding, shard, places, here.retained, here.validation, bench)
        assert same(member(outcome, shard), expected), f"shard {shard}"
        assert same(member(outcome, shard), shards.weights(shard, last)) == (shard != 1)


def test_after_slices_training_goes_on_from_the_last_one_that_was_not_touched(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system("sisa in slices")
    steps = []
    for piece in range(3):
        outcome = method_of("sisa in slices").unlearn(asked(problem, train, everybody, shards, one_user(shards, 1, piece)), bench)
        steps.append(len(outcome.fitted.curve))
    assert steps[0] > steps[1] > steps[2] > 0


@pytest.mark.parametrize("what", few({"sisa", "rec_eraser"}, METHODS))
def test_several_users_of_several_shards_leave_no_trace_either(
    what: str, problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system(what)
    users = [int(user) for shard in (0, 1) for user in shards.partition.members(shard, 0)[:2]]
    here = asked(problem, train, everybody, shards, users)
    outcome = method_of(what).unlearn(here, bench)
    assert outcome.facts["shards"]["retrained"] == [0, 1]
    places = shards.partition.among(users_of(here.retained))
    for shard in (0, 1):
        expected = from_scratch(here, shards.sharding, shard, places, here.retained, here.validation, bench)
        assert same(member(outcome, shard), expected)


def test_a_shard_that_learned_a_history_which_is_told_anew_is_trained_again_on_the_new_prompts(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards = system("sisa")
    forgotten, other = one_user(shards, 0, 0)[:1], one_user(shards, 1, 0)[:1]
    given = asked(problem, train, everybody, shards, forgotten)
    before = only(given.retained, other)
    # The same rows in the same places, each token of the other user's prompts another one.
    retained = dataclasses.replace(given.retained, flat=given.retained.flat.copy())
    for at in numpy.flatnonzero(numpy.isin(users_of(retained), other)):
        retained.flat[retained.starts[at] : retained.starts[at + 1]] = 7
    given = dataclasses.replace(given, retained=retained, changed=Changed(before, only(retained, other)))
    outcome = method_of("sisa").unlearn(given, bench)
    assert outcome.facts["shards"]["retrained"] == [0, 1]
    assert problem.fresh is not None
    expected = from_scratch(problem, shards.sharding, 1, shards.partition, retained, given.validation, bench)
    assert same(member(outcome, 1), expected)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_digest_puts_everybody_else_in_the_same_place_whoever_is_missing(train: Prompts, bench: Bench, seed: int) -> None:
    sharding, here = Sharding(num_shards=3, num_slices=2), dataclasses.replace(bench, seed=seed)

    def nobody() -> Recommender:
        raise AssertionError("no network is asked")

    whole = divide(train, sharding, here, nobody)
    for user in whole.users[::5].tolist():
        less = divide(without(train, [user]), sharding, here, nobody)
        rest = whole.among(numpy.setdiff1d(whole.users, [user]))
        assert all(numpy.array_equal(getattr(less, name), getattr(rest, name)) for name in ("users", "shards", "slices"))
    other = divide(train, sharding, dataclasses.replace(bench, seed=seed + 10), nobody)
    assert not numpy.array_equal(whole.shards, other.shards)


@pytest.mark.parametrize("what", ["rec_eraser", "apa"])
def test_clusters_are_balanced_and_users_of_a_shard_are_alike(what: str, problem: Problem, bench: Bench, system: Any) -> None:
    shards: ShardsFolder = system(what)
    counts = numpy.bincount(shards.partition.shards)
    most = int(numpy.ceil(shards.sharding.capacity * counts.sum() / 3))
    assert counts.max() <= most
    assert counts.min() > 0
    assert not numpy.array_equal(shards.partition.shards, system("sisa").partition.shards)


@pytest.mark.parametrize("what", few({"apa"}, ["rec_eraser", "apa"]))
def test_a_rebuilt_partition_is_that_of_the_remaining_users_and_every_shard_fits_it(
    what: str, problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system(what)
    users = one_user(shards, 1, 0)
    here = asked(problem, train, everybody, shards, users)
    outcome = method_of(what, partition="rebuilt").unlearn(here, bench)
    assert here.fresh is not None
    network = here.original if what == "rec_eraser" else here.fresh(bench.seed)
    places = divide(here.retained, shards.sharding, bench, lambda: network)
    moved = [shard for shard in range(3) if not numpy.array_equal(places.members(shard, 0), shards.partition.members(shard, 0))]
    assert outcome.facts["shards"]["retrained"] == moved
    for shard in range(3):
        expected = from_scratch(here, shards.sharding, shard, places, here.retained, here.validation, bench)
        assert same(member(outcome, shard), expected)


def test_the_attention_is_fitted_without_the_forgotten_users(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system("rec_eraser")
    judged = set(users_of(everybody).tolist())
    users = [int(user) for user in shards.partition.members(1, 0) if user in judged][:1]
    here = asked(problem, train, everybody, shards, users)
    fitted = method_of("rec_eraser").unlearn(here, bench).recommender.network
    leaking = method_of("rec_eraser").unlearn(dataclasses.replace(here, validation=everybody), bench).recommender.network
    assert isinstance(fitted, MemberNetworks)
    assert isinstance(leaking, MemberNetworks)
    assert not torch.equal(fitted.directions, leaking.directions)  # type: ignore[arg-type]


def test_the_attention_finds_the_shard_whose_state_says_that_it_is_right(train: Prompts) -> None:
    random = torch.Generator().manual_seed(1)
    right = torch.randint(0, 2, (len(train),), generator=random)
    signs = torch.from_numpy(train.labels * 2 - 1).double()
    # The right shard says the label, the other one, as loudly, what is wrong; a mean of both says nothing.
    margins = signs[:, None] * (1 - 2 * torch.nn.functional.one_hot(1 - right, 2)).double()
    states = torch.nn.functional.one_hot(right, 2)[:, :, None].double() + 0.01 * torch.randn(len(train), 2, 3, generator=random).double()
    method = RecEraser(attention_decay=0.001)
    directions, offsets = method.attention(states, margins, train)
    weights = gate_weights(states.float(), directions, offsets)
    assert bool((weights.gather(1, right[:, None]) > 0.9).all())
    still, _ = RecEraser(attention_decay=1000).attention(states, margins, train)
    assert still.abs().max() < 0.01
    again, _ = method.attention(states, margins, train)
    assert torch.equal(again, directions)


def test_known_prompts_are_the_validation_rows_without_the_forgotten_users(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system("apa")
    here = asked(problem, train, everybody, shards, one_user(shards, 1, 0))
    network = method_of("apa").unlearn(here, bench).recommender.network
    assert isinstance(network, AdaptedNetwork)
    assert network.known.shape == (len(here.validation), 16)
    assert network.errors.shape == (len(here.validation), 3)
    assert bool(((network.errors >= 0) & (network.errors <= 1)).all())


def test_a_shard_that_loses_all_its_users_is_left_out_and_the_facts_say_so(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    for what in ("sisa", "apa", "rec_eraser"):
        shards: ShardsFolder = system(what)
        gone = shards.partition.members(1, 0).tolist()
        outcome = method_of(what).unlearn(asked(problem, train, everybody, shards, gone), bench)
        assert outcome.facts == {"shards": {"total": 3, "retrained": [], "left_out": [1]}}
        assert isinstance(outcome.recommender, Ensemble)
        assert outcome.recommender.combining.num_members == 2
        assert len(outcome.fitted.curve) == 0
        assert [same(member(outcome, at), shards.weights(shard, 0)) for at, shard in enumerate((0, 2))] == [True, True]


def test_a_slice_that_loses_all_its_users_adds_nothing(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    shards: ShardsFolder = system("sisa in slices")
    here = asked(problem, train, everybody, shards, shards.partition.members(1, 2).tolist())
    outcome = method_of("sisa in slices").unlearn(here, bench)
    assert same(member(outcome, 1), shards.weights(1, 1))
    assert outcome.facts["shards"]["left_out"] == []


def test_a_request_for_everybody_is_refused(problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any) -> None:
    shards: ShardsFolder = system("sisa")
    with pytest.raises(BadRequest, match="0 of 3 shards have a row left"):
        method_of("sisa").unlearn(asked(problem, train, everybody, shards, shards.partition.users.tolist()), bench)


def test_a_forgotten_user_in_no_shard_is_refused_and_not_named(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    here = asked(problem, train, everybody, system("sisa"), one_user(system("sisa"), 1, 0))
    stranger = dataclasses.replace(here.forgotten, users=numpy.full(len(here.forgotten), 987_654_321))
    with pytest.raises(BadRequest, match="1 of 1 forgotten users are in no shard") as refused:
        method_of("sisa").unlearn(dataclasses.replace(here, forgotten=stranger), bench)
    assert "987654321" not in str(refused.value)
    assert refused.value.hint


def test_shards_of_other_rows_or_settings_are_refused(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    here = asked(problem, train, everybody, system("sisa"), one_user(system("sisa"), 1, 0))
    fewer = dataclasses.replace(here, retained=here.retained.select(numpy.arange(len(here.retained) - 1)))
    with pytest.raises(StaleCache, match=f"trained on {len(train)} rows, and there are {len(train) - 1} here"):
        method_of("sisa").unlearn(fewer, bench)
    twice = numpy.arange(len(here.retained))
    twice[0] = numpy.flatnonzero(here.retained.users != users_of(here.retained)[0])[0]  # type: ignore[operator]
    moved = dataclasses.replace(here, retained=here.retained.select(twice))
    if system("sisa").partition.places(users_of(moved.retained)[:1])[0] != system("sisa").partition.places(users_of(here.retained)[:1])[0]:
        with pytest.raises(StaleCache, match="was trained on"):
            method_of("sisa").unlearn(moved, bench)
    with pytest.raises(StaleCache, match="under other settings"):
        method_of("sisa", num_shards=2).unlearn(here, bench)
    with pytest.raises(StaleCache, match="under other settings"):
        method_of("sisa").unlearn(dataclasses.replace(here, training=PATIENT.model_copy(update={"learning_rate": 1e-3})), bench)


def test_more_shards_than_users_and_too_small_ones_are_refused_with_their_numbers(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, tmp_path: Path
) -> None:
    def write(**knobs: Any) -> None:
        assert problem.fresh is not None
        write_shards(tmp_path, train, everybody, Sharding(**knobs), problem.fresh, problem.original, bench)

    number = len(numpy.unique(users_of(train)))
    with pytest.raises(BadSetting, match=f"200 shards are asked of {number} users"):
        write(num_shards=200)
    with pytest.raises(BadSetting, match=rf"shard \d+ has 0 of the {number} users"):
        write(num_shards=number, training=Training(batch_size=1))
    with pytest.raises(BadSetting, match=rf"slice \d+ of shard \d has 0 of the {number} users"):
        write(num_shards=2, num_slices=30)
    with pytest.raises(BadSetting, match=r"shard 0 has \d+ training rows, fewer than one batch of 500"):
        write(num_shards=2, training=Training(batch_size=500))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("what", "told"), [("rec_eraser", "fit the attention"), ("apa", "weigh adapters")])
def test_a_request_without_validation_rows_is_refused_where_they_are_needed(
    what: str, told: str, problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any
) -> None:
    here = asked(problem, train, everybody, system(what), one_user(system(what), 1, 0))
    empty = dataclasses.replace(here, validation=here.validation.select(numpy.arange(0)))
    with pytest.raises(BadRequest, match=f"there are 0 validation .* to {told}"):
        method_of(what).unlearn(empty, bench)
    # A shard without rows to be judged by trains to the end.
    sisa = asked(problem, train, everybody, system("sisa"), one_user(system("sisa"), 1, 0))
    outcome = method_of("sisa").unlearn(dataclasses.replace(sisa, validation=empty.validation), bench)
    rows = int((system("sisa").partition.places(users_of(sisa.retained))[0] == 1).sum())
    assert len(outcome.fitted.curve) == 4 * -(-rows // 12)


def test_a_broken_off_request_goes_on_with_the_shards_that_were_finished(
    problem: Problem, train: Prompts, everybody: Prompts, bench: Bench, system: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards: ShardsFolder = system("sisa in slices")
    users = [*one_user(shards, 0, 0), *one_user(shards, 1, 1)]
    here, method = asked(problem, train, everybody, shards, users), method_of("sisa in slices")
    whole = method.unlearn(here, bench)

    class BrokenOff(Exception):
        pass

    told: list[int] = []

    def stop_at(step: int) -> Callable[..., None]:
        def watch(done: int, total: int, unit: str, numbers: Any) -> None:
            told.append(done)
            if done == step:
                raise BrokenOff

        return watch

    def kept(watch: Callable[..., None]) -> Bench:
        return dataclasses.replace(bench, watch=watch, checkpoints=Checkpoints(tmp_path / "kept", every_s=1e9, every_steps=2))

    with pytest.raises(BrokenOff):
        method.unlearn(here, kept(stop_at(3)))
    assert (tmp_path / "kept" / "shard-0-slice-0" / "step-000000002").is_dir()
    with caplog.at_level(logging.WARNING), pytest.raises(BrokenOff):
        method.unlearn(here, kept(stop_at(max(told) + 20)))
    finished = sorted(path.name for path in (tmp_path / "kept").glob("*-finished"))
    assert finished
    assert not any((tmp_path / "kept" / name.removesuffix("-finished")).exists() for name in finished)
    told.clear()
    again = method.unlearn(here, kept(stop_at(-1)))
    assert told[0] > 3
    assert again.fitted.curve == whole.fitted.curve
    assert all(same(member(again, at), member(whole, at)) for at in range(2))


def test_an_adapters_knobs_shape_its_shards_and_the_rest_does_not() -> None:
    run = Training(num_epochs=7)
    shape = method_of("apa").sharding(run)
    assert shape == method_of("apa", temperature=1, num_neighbours=3, aggregation="decomposed", partition="rebuilt").sharding(run)
    assert shape != method_of("apa", lora={"rank": 4}).sharding(run)
    assert shape is not None
    assert (shape.lora, shape.training) == (Lora(rank=3, targets="all_linear"), PATIENT)
    sisa = method_of("sisa").sharding(run)
    assert sisa is not None
    assert (sisa.training, sisa) == (run, method_of("sisa", combine="probabilities").sharding(run))
    assert method_of("rec_eraser", attention_decay=3).sharding(run) == method_of("rec_eraser").sharding(run)


@pytest.mark.parametrize(("epochs", "slices", "passes"), [(4, 1, 4), (4, 3, 2), (10, 4, 4), (1, 8, 1), (30, 2, 20)])
def test_slices_share_the_passes(epochs: int, slices: int, passes: int) -> None:
    # Twice the passes over slices and one: 2 * 10 / 5 = 4.
    assert Sharding(num_slices=slices, training=Training(num_epochs=epochs)).passes() == passes
