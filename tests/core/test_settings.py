"""Settings and errors: what a user may write, and what a user reads when it was wrong."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from e2urec_core import errors
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.errors import BadInput, UserError
from e2urec_core.seeding import derived_seed, numpy_generator, seeded, torch_generator
from e2urec_core.settings import Augment, CacheRule, EngineRule, EvaluateRule, Lora, Seat, Settings, Training

REPOSITORY = Path(__file__).parents[2]
GROUPS = [Training, Augment, Lora, PromptRule, SplitRule, ForgetRule, CacheRule, EvaluateRule, EngineRule]
ERRORS = sorted((kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UserError)), key=str)


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_of_a_group_of_knobs_has_a_sentence(group: type[Settings]) -> None:
    told = {name: field.description or "" for name, field in group.model_fields.items()}
    assert {name: sentence for name, sentence in told.items() if not sentence.endswith(".")} == {}


@pytest.mark.parametrize("group", GROUPS)
def test_an_unknown_knob_is_refused_by_name(group: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="learning_rat\n"):
        group.model_validate({"learning_rat": 1e-3})


@pytest.mark.parametrize("group", GROUPS)
def test_a_set_knob_cannot_be_changed_afterwards(group: type[Settings]) -> None:
    knobs = group()
    name = next(iter(group.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(knobs, name, getattr(knobs, name))


@pytest.mark.parametrize("group", GROUPS)
def test_knobs_come_back_from_their_json_as_they_were(group: type[Settings]) -> None:
    knobs = group()
    assert group.model_validate_json(knobs.model_dump_json()) == knobs
    assert group.model_validate(json.loads(json.dumps(knobs.canonical()))) == knobs


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (Training, "num_epochs", 0),
        (Training, "batch_size", 0),
        (Training, "learning_rate", 0.0),
        (Training, "learning_rate", float("nan")),
        (Training, "learning_rate", float("inf")),
        (Training, "warmup_share", 1.0),
        (Training, "max_gradient_norm", 0.0),
        (Training, "schedule", "cosine"),
        (Lora, "rank", 0),
        (Lora, "dropout", 1.0),
        (Lora, "alpha", float("inf")),
        (Lora, "targets", "everything"),
        (PromptRule, "history_length", 0),
        (PromptRule, "template", "long"),
        (SplitRule, "train_share", 1.0),
        (SplitRule, "holdout_share", 1.0),
        (SplitRule, "last_examples", -1),
        (ForgetRule, "share", 1.5),
        (CacheRule, "top", 1),
        (CacheRule, "retained_per_forgotten", 0.0),
        (CacheRule, "rows_per_group", 15),
        (CacheRule, "support", "half"),
        (Training, "check_every", -1),
        (Training, "diverged_above", 1.0),
        (Augment, "trains", "head"),
        (EvaluateRule, "floor_seeds", 33),
        (EngineRule, "token_budget", 15),
        (EngineRule, "compiled", "perhaps"),
        (EngineRule, "checkpoint_every_s", 0.0),
    ],
)
def test_a_value_beyond_its_bound_is_refused_at_its_field(group: type[Settings], name: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        group.model_validate({name: value})
    assert [error["loc"] for error in refused.value.errors()] == [(name,)]


def test_canonical_settings_are_plain_json_and_name_every_knob() -> None:
    plain = Training(num_epochs=3).canonical()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == set(Training.model_fields)
    assert plain["num_epochs"] == 3


def test_a_cache_rule_takes_the_number_of_draws_unless_a_number_was_set() -> None:
    assert CacheRule().planned(2.0, False).retained_per_forgotten == 2.0
    assert CacheRule(retained_per_forgotten=0.5).planned(2.0, False).retained_per_forgotten == 0.5
    # A method that draws no retained row still leaves a rule within its bounds.
    assert CacheRule.model_validate(CacheRule().planned(0.0, False).canonical()).retained_per_forgotten == 1e-9


@pytest.mark.parametrize(("asked", "method", "kept"), [(None, True, True), (None, False, False), (False, True, False), (True, False, True)])
def test_encoder_states_are_kept_for_a_method_that_can_use_them_unless_that_was_set(asked: bool | None, method: bool, kept: bool) -> None:
    assert CacheRule(encoder_states=asked).planned(1.0, method).encoder_states is kept


def test_how_often_checkpoints_are_kept_is_no_part_of_a_stages_key_and_all_else_is() -> None:
    seat = Seat(seed=1)
    often = EngineRule(checkpoint_every_s=1.0, checkpoint_every_steps=5)
    assert Seat(seed=1, engine=often).keyed() == seat.keyed()
    others: list[dict[str, object]] = [{"device": "cuda"}, {"threads": 2}, {"processes": 2}, {"precision": "bf16"}, {"seed": 2}]
    others += [{"engine": EngineRule(token_budget=64)}, {"engine": EngineRule(compiled="on")}]
    assert [other for other in others if Seat.model_validate({"seed": 1, **other}).keyed() == seat.keyed()] == []
    assert {name for other in others for name in other} == set(Seat.model_fields)


def test_shares_that_leave_nothing_to_test_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValidationError, match=r"0\.7.*0\.3.*leave nothing to test"):
        SplitRule(train_share=0.7, validation_share=0.3)


def test_an_error_shows_the_fact_its_numbers_under_each_other_and_a_hint() -> None:
    error = BadInput("3 of 10 lines are short", facts={"file": "a.dat", "first line": 7}, hint="mend the file")
    assert str(error) == "BadInput: 3 of 10 lines are short\n  file         a.dat\n  first line   7\nhint: mend the file"


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_survives_the_way_to_another_process(kind: type[UserError]) -> None:
    error = kind("1 of 2 is wrong", facts={"number": 1}, hint="mend it")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert (back.fact, back.facts, back.hint) == (error.fact, error.facts, error.hint)


def test_there_are_the_named_errors_that_the_command_tells_apart() -> None:
    assert {kind.__name__ for kind in ERRORS} >= {"BadInput", "BadRequest", "SplitLeak", "StaleCache", "Diverged", "DamagedArtifact"}
    assert all(kind.__doc__ for kind in ERRORS)


def test_a_purpose_has_its_own_seed_which_is_the_same_in_another_process() -> None:
    code = "from e2urec_core.seeding import derived_seed; print(derived_seed(5, 'dropout'))"
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert int(told) == derived_seed(5, "dropout")
    assert len({derived_seed(5, "dropout"), derived_seed(6, "dropout"), derived_seed(5, "row-order")}) == 3
    assert 0 <= derived_seed(5, "dropout") < 2**63


def test_generators_of_one_purpose_draw_the_same_numbers() -> None:
    assert numpy_generator(5, "a").random(4).tolist() == numpy_generator(5, "a").random(4).tolist()
    assert numpy_generator(5, "a").random(4).tolist() != numpy_generator(5, "b").random(4).tolist()
    assert torch_generator(5, "a").initial_seed() == torch_generator(5, "a").initial_seed() != torch_generator(5, "b").initial_seed()


def test_a_seeded_block_repeats_itself_and_leaves_the_global_state_as_it_was() -> None:
    import torch

    torch.manual_seed(11)
    undisturbed = torch.rand(3)
    torch.manual_seed(11)
    with seeded(1, "dropout"):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), undisturbed)
    with seeded(1, "dropout"):
        assert torch.equal(torch.rand(3), first)
    with seeded(2, "dropout"):
        assert not torch.equal(torch.rand(3), first)
