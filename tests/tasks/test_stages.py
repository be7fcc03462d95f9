"""A stage around a toy function: taken from the store or run, all or nothing, tried again only where that can help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from data_contracts.quarantine import QUARANTINE
from e2urec_core.artifacts import Augmented, Interactions, Original, Unlearned
from e2urec_core.errors import BadInput, BadRequest, ContractBroken, DamagedArtifact, ProcessDied, StorageFailed, UnknownRun
from e2urec_core.settings import Seat

if TYPE_CHECKING:
    from tasks._room import Room
    from tasks._stage import Work

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

SECRET = "subject-4711-"


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _stage

    monkeypatch.setattr(_stage, "FIRST_DELAY_S", 0)


class Toy:
    """Stages that write one line, and how often each function was called."""

    def __init__(self) -> None:
        from tasks._stage import stage

        self.calls: list[str] = []
        self.faults: list[BaseException] = []

        @stage("train-original", writes=Original, aside=("seconds",))
        def first(work: Work, line: str, seconds: float) -> int:
            """Write one line."""
            self.calls.append("first")
            (work.place / "line.txt").write_text(line)
            if self.faults:
                raise self.faults.pop(0)
            return 1

        @stage("train-augmented", writes=Augmented)
        def second(work: Work, original: Original, more: str) -> int:
            """Add to the line."""
            self.calls.append("second")
            (work.place / "line.txt").write_text((work.open(original) / "line.txt").read_text() + more)
            return 2

        @stage("unlearn", writes=Unlearned)
        def third(work: Work, parents: list[Augmented], original: Original | None) -> int:
            """Take several."""
            self.calls.append("third")
            (work.place / "line.txt").write_text(str(len(parents)))
            return 3

        self.first, self.second, self.third = first, second, third


@pytest.fixture
def toy() -> Toy:
    return Toy()


def inside(room: Room) -> set[str]:
    """Every file of the store."""
    return {str(path.relative_to(room.store.root)) for path in room.store.root.rglob("*") if path.is_file()}


def test_an_equal_stage_is_taken_from_the_store_and_says_so(room: Room, toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    made = toy.first("a", 1.0)
    taken = toy.first("a", 1.0)
    assert (toy.calls, taken) == (["first"], made)
    assert room.journal.record.stages["train-original"].state == "cached"
    assert room.tracker.tags["e2urec.state"] == "cached"
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("train-original ")
    assert lines[0].endswith(f" s   Original {made.short}  1 rows")
    assert lines[1] == f"train-original     cached      Original {made.short}"


def test_an_argument_that_is_set_aside_does_not_rerun_the_stage_and_others_do(room: Room, toy: Toy) -> None:
    toy.first("a", 1.0)
    toy.first("a", 2.0)
    assert toy.calls == ["first"]
    toy.first("b", 1.0)
    assert toy.calls == ["first", "first"]


def test_a_cached_stage_keeps_the_seconds_it_once_took(room: Room, toy: Toy) -> None:
    toy.first("a", 1.0)
    took = room.journal.record.stages["train-original"].seconds
    toy.first("a", 1.0)
    assert room.journal.record.stages["train-original"].seconds == took > 0


def test_parents_are_every_artifact_that_was_handed_in(room: Room, toy: Toy) -> None:
    original = toy.first("a", 1.0)
    augmented = [toy.second(original, more) for more in "xy"]
    assert augmented[0].parents == (original.digest,)
    unlearned = toy.third(augmented, None)
    assert unlearned.parents == tuple(sorted(handle.digest for handle in augmented))
    assert (unlearned.rows, unlearned.made_by) == (3, "unlearn")


def test_a_stage_whose_function_raises_leaves_the_store_as_it_was_and_is_noted_as_failed(room: Room, toy: Toy) -> None:
    toy.first("a", 1.0)
    before = inside(room)
    toy.faults = [BadInput("3 of 9 rows are blue", hint="paint them")]
    with pytest.raises(BadInput):
        toy.first("b", 1.0)
    assert inside(room) == before
    entry = room.journal.record.stages["train-original"]
    assert (entry.state, entry.fault, entry.handle) == ("failed", "BadInput: 3 of 9 rows are blue", None)
    assert room.tracker.ended == [("train-original", "FINISHED"), ("train-original", "FAILED")]


def test_the_journal_shows_no_text_of_an_error_that_is_not_for_users(room: Room, toy: Toy) -> None:
    toy.faults = [ValueError(f"user {SECRET}1 is odd")]
    with pytest.raises(ValueError, match="is odd"):
        toy.first("a", 1.0)
    assert room.journal.record.stages["train-original"].fault == "ValueError"
    assert SECRET not in room.journal.path.read_text()


def test_a_stage_is_running_in_the_journal_while_it_runs(room: Room) -> None:
    from tasks._stage import stage

    seen = []

    @stage("train-original", writes=Original)
    def look(work: Work) -> int:
        """Look around."""
        seen.append((work.room.journal.record.stages["train-original"].state, work.place.parent))
        (work.place / "line.txt").write_text("a")
        return 1

    look()
    assert seen == [("running", room.store.root / "tmp")]
    assert room.journal.record.stages["train-original"].state == "completed"


@pytest.mark.parametrize(
    "fault",
    [
        OSError(5, "Input/output error"),
        MemoryError(),
        StorageFailed("0 bytes are free", hint="free some"),
        ProcessDied("the process of `train-original` ended with signal 9", hint="run it again"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_what_may_pass_is_tried_again_and_passes(room: Room, toy: Toy, fault: BaseException) -> None:
    toy.faults = [fault, fault]
    made = toy.first("a", 1.0)
    assert toy.calls == ["first"] * 3
    assert (room.store.open(made) / "line.txt").read_text() == "a"
    assert room.journal.record.stages["train-original"].state == "completed"


def test_out_of_memory_of_a_device_is_tried_again(room: Room, toy: Toy) -> None:
    import torch

    toy.faults = [torch.OutOfMemoryError("CUDA out of memory")]
    toy.first("a", 1.0)
    assert toy.calls == ["first"] * 2


def test_what_may_pass_and_does_not_ends_after_three_tries_as_a_storage_fault(room: Room, toy: Toy) -> None:
    toy.faults = [OSError(28, "No space left on device") for _ in range(5)]
    with pytest.raises(StorageFailed, match="No space left on device"):
        toy.first("a", 1.0)
    assert toy.calls == ["first"] * 3
    assert inside(room) == set()


@pytest.mark.parametrize(
    "fault",
    [BadInput("1 row is bad", hint="mend it"), BadRequest("0 users", hint="name some"), ValueError("ours"), AssertionError("ours")],
    ids=lambda fault: type(fault).__name__,
)
def test_what_cannot_pass_is_tried_once(room: Room, toy: Toy, fault: BaseException) -> None:
    toy.faults = [fault, fault, fault]
    with pytest.raises(type(fault)):
        toy.first("a", 1.0)
    assert toy.calls == ["first"]


def test_a_user_error_keeps_its_sentence_and_hint_through_prefect(room: Room, toy: Toy) -> None:
    toy.faults = [BadInput("1 row is bad", hint="mend it", facts={"row": 3})]
    with pytest.raises(BadInput) as caught:
        toy.first("a", 1.0)
    assert str(caught.value) == "BadInput: 1 row is bad\n  row   3\nhint: mend it"


def test_a_process_that_dies_at_every_try_is_given_up_with_its_sentence(room: Room, toy: Toy) -> None:
    toy.faults = [ProcessDied("the process of `train-original` ended with signal 9", hint="run it again") for _ in range(5)]
    with pytest.raises(ProcessDied, match="ended with signal 9"):
        toy.first("a", 1.0)
    assert toy.calls == ["first"] * 3
    assert room.journal.record.stages["train-original"].fault == "ProcessDied: the process of `train-original` ended with signal 9"


def test_what_an_unfinished_stage_keeps_is_there_at_the_next_try_and_gone_once_it_is_published(room: Room) -> None:
    from tasks._stage import stage

    found: list[list[str]] = []
    places: list[Path] = []

    @stage("train-original", writes=Original)
    def steps(work: Work) -> int:
        """Keep a step, fail twice."""
        work.checkpoints.mkdir(parents=True, exist_ok=True)
        found.append(sorted(path.name for path in work.checkpoints.iterdir()))
        places.append(work.place)
        (work.checkpoints / f"step-{len(found)}").touch()
        if len(found) < 3:
            raise ProcessDied("killed", hint="run it again")
        (work.place / "line.txt").write_text("a")
        return 1

    steps()
    assert found == [[], ["step-1"], ["step-1", "step-2"]]
    # Every try writes into a folder of its own, so that nothing half-written is published.
    assert len(set(places)) == 3
    assert list((room.store.root / "checkpoints").iterdir()) == []


class Performed:
    """Stands in for the two ways of running a stage, and notes which was taken with what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from e2urec_core import stages
        from tasks import _isolation
        from tasks._stage import stage

        self.ways: list[str] = []
        self.given: list[Any] = []

        def apart(name: str, arguments: Any, seat: Seat, place: Path, checkpoints: Path, watch: Any) -> int:
            self.ways.append("apart")
            self.given.append((name, arguments, seat, checkpoints))
            return self._steps(place, watch)

        def inline(tokens: Path, bench: Any, place: Path) -> int:
            self.ways.append("inline")
            self.given.append((tokens, bench))
            return self._steps(place, bench.watch)

        monkeypatch.setattr(_isolation, "perform_apart", apart)
        monkeypatch.setattr(stages, "train_original", inline)

        @stage("train-original", writes=Original)
        def train(work: Work, seat: Seat) -> int:
            """Train in one of two ways."""
            return work.perform(seat, "train_original", tokens=work.place)

        self.train = train

    @staticmethod
    def _steps(place: Path, watch: Any) -> int:
        (place / "line.txt").write_text("a")
        watch(1, 2, "steps", {"loss": 0.5})
        watch(2, 2, "steps", {"loss": 0.25})
        watch(9, 9, "rows", {})
        return 3


@pytest.mark.parametrize(
    ("execution", "processes", "way"), [("inline", 1, "inline"), ("process", 1, "apart"), ("inline", 2, "apart"), ("process", 2, "apart")]
)
def test_a_stage_runs_apart_when_asked_and_always_with_several_processes(
    room: Room, monkeypatch: pytest.MonkeyPatch, execution: Any, processes: int, way: str
) -> None:
    performed = Performed(monkeypatch)
    room.execution = execution
    assert performed.train(Seat(seed=0, processes=processes)).rows == 3
    assert performed.ways == [way]


@pytest.mark.parametrize("execution", ["inline", "process"])
def test_the_losses_that_a_stage_tells_are_tracked_whichever_process_it_runs_in(
    room: Room, monkeypatch: pytest.MonkeyPatch, execution: Any
) -> None:
    performed = Performed(monkeypatch)
    room.execution = execution
    performed.train(Seat(seed=0))
    # The third call has no numbers, so it is progress and no step.
    assert [point for point in room.tracker.points if point[0] == "loss"] == [("loss", 0.5, 1), ("loss", 0.25, 2)]


def test_a_stage_apart_is_handed_the_folder_that_outlives_a_kill(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    performed = Performed(monkeypatch)
    room.execution = "process"
    performed.train(Seat(seed=0))
    name, arguments, seat, checkpoints = performed.given[0]
    assert (name, set(arguments), seat) == ("train_original", {"tokens"}, Seat(seed=0))
    assert checkpoints == room.store.root / "checkpoints" / room.journal.record.stages["train-original"].key


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_result_is_made_again_and_not_used(room: Room, toy: Toy) -> None:
    made = toy.first("abc", 1.0)
    flip(room.store.open(made) / "line.txt")
    again = toy.first("abc", 1.0)
    assert (toy.calls, again) == (["first"] * 2, made)
    assert (room.store.open(again) / "line.txt").read_text() == "abc"


def test_a_damaged_input_is_refused_by_name(room: Room, toy: Toy) -> None:
    made = toy.first("abc", 1.0)
    flip(room.store.open(made) / "line.txt")
    with pytest.raises(DamagedArtifact, match=f"Original {made.short} is damaged: the bytes of `line.txt` have changed") as caught:
        toy.second(made, "x")
    assert "`train-original`" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "train-original"}'])
def test_an_unreadable_note_of_a_result_is_a_result_not_known(room: Room, toy: Toy, text: str) -> None:
    made = toy.first("a", 1.0)
    (key,) = (room.store.root / "keys").iterdir()
    key.write_text(text)
    assert toy.first("a", 1.0) == made
    assert toy.calls == ["first"] * 2


def modes(forced: str, order: tuple[str, ...]) -> Callable[[str], Any]:
    return lambda name: "force" if name == forced else "recorded" if order.index(name) < order.index(forced) else "compare"


def test_a_forced_stage_runs_though_the_store_knows_it_and_a_later_one_is_only_compared(room: Room, toy: Toy) -> None:
    original = toy.first("a", 1.0)
    augmented = toy.second(original, "x")
    room.mode = modes("train-original", ("train-original", "train-augmented"))
    forced = toy.first("b", 1.0)
    assert toy.second(forced, "x") == augmented
    assert toy.calls == ["first", "second", "first"]
    assert room.stale == ["train-augmented"]
    assert room.journal.record.stages["train-augmented"].state == "stale"


def test_an_earlier_stage_is_as_recorded(room: Room, toy: Toy) -> None:
    original = toy.first("a", 1.0)
    room.mode = modes("train-augmented", ("train-original", "train-augmented"))
    assert toy.first("a", 1.0) == original
    toy.second(original, "x")
    assert (toy.calls, room.stale) == (["first", "second"], [])


def test_a_stage_that_needs_one_never_finished_says_which(room: Room, toy: Toy) -> None:
    room.mode = modes("train-augmented", ("train-original", "train-augmented"))
    with pytest.raises(UnknownRun, match="never finished its stage `train-original`") as caught:
        toy.first("a", 1.0)
    assert caught.value.hint == f"run `e2urec stage train-original --run {room.journal.record.run}` first"


def broken_interactions(place: Path) -> int:
    """Twenty ratings of which five have an answer that is neither yes nor no."""
    labels = [7 if row < 5 else 1 for row in range(20)]
    users, items = [f"{SECRET}{row:02}" for row in range(20)], [f"i{row}" for row in range(20)]
    columns = {
        "interaction_id": range(20),
        "user_id": users,
        "item_id": items,
        "rating": [3.0] * 20,
        "timestamp_s": range(20),
        "label": labels,
    }
    (place / "interactions").mkdir()
    rows = [list(columns[name]) for name in INTERACTIONS.column_names]
    pq.write_table(pa.table(rows, schema=INTERACTIONS.schema()), place / "interactions" / "part-00000.parquet")
    pq.write_table(QUARANTINE.schema().empty_table(), place / "quarantine.parquet")
    items = [[f"i{row}" for row in range(20)], [f"Title {row}" for row in range(20)]]
    pq.write_table(pa.table(items, schema=ITEMS.schema()), place / "items.parquet")
    pq.write_table(pa.table([users, [None] * 20, [None] * 20], schema=USERS.schema()), place / "users.parquet")
    return 20


def test_a_table_that_breaks_its_contract_stops_the_stage_and_nothing_is_published(room: Room) -> None:
    from tasks._stage import stage

    calls = []

    @stage("ingest", writes=Interactions)
    def spill(work: Work) -> int:
        """Write broken rows."""
        calls.append(1)
        return broken_interactions(work.place)

    with pytest.raises(ContractBroken) as caught:
        spill()
    said = str(caught.value)
    assert said.splitlines()[0] == "ContractBroken: 5 of 20 rows break the rule `label one of 0, 1` of the contract `interactions`"
    assert caught.value.facts == {
        "table": "interactions/part-00000.parquet",
        "example 1": "row 0: label 7",
        "example 2": "row 1: label 7",
        "example 3": "row 2: label 7",
    }
    assert SECRET not in said
    assert (calls, inside(room)) == ([1], set())
    assert room.journal.record.stages["ingest"].state == "failed"
    assert SECRET not in room.journal.path.read_text()
