"""Forms of settings: what is left empty is not changed, what is filled in has its owner's bounds."""

from __future__ import annotations

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError

from e2urec_core.settings import Augment, Settings, Training
from flows.forms import filled_in, form_of
from flows.stages import FLOWS
from flows.unlearn import unlearn


def test_an_empty_form_changes_nothing_and_a_field_only_itself() -> None:
    form = form_of(Augment)
    assert filled_in("augment", form()) == {}
    told = form.model_validate({"learning_rate": 1e-4, "lora": {"rank": 4}})
    assert filled_in("augment", told) == {"augment.learning_rate": 1e-4, "augment.lora.rank": 4}
    assert filled_in("", form.model_validate({"num_epochs": 3})) == {"num_epochs": 3}
    assert filled_in("augment", None) == {}


@pytest.mark.parametrize("wrong", [{"learning_rate": -5}, {"num_epochs": 0}, {"schedule": "cosine"}, {"rate": 1}])
def test_a_form_refuses_what_its_owner_refuses(wrong: dict[str, object]) -> None:
    for owner in (Training, form_of(Training)):
        with pytest.raises(ValidationError):
            owner.model_validate(wrong)


def test_every_field_has_its_owner_s_sentence_and_default() -> None:
    def compare(owner: type[Settings], form: type[Settings]) -> None:
        assert form.model_fields.keys() == owner.model_fields.keys()
        for name, field in form.model_fields.items():
            assert str(owner.model_fields[name].description) in str(field.description)
            inner = owner.model_fields[name].annotation
            if isinstance(inner, type) and issubclass(inner, Settings):
                compare(inner, form_of(inner))
            else:
                assert f"the default of new runs is {owner.model_fields[name].default}" in str(field.description)

    compare(Augment, form_of(Augment))


def test_the_server_checks_the_form_of_a_stage_before_there_is_a_run() -> None:
    schema = parameter_schema(FLOWS["train-augmented"].fn).model_dump()
    validate({"run": "last", "augment": {"learning_rate": 1e-4}}, schema, raise_on_error=True)
    with pytest.raises(Exception, match=r"augment.learning_rate"):
        validate({"augment": {"learning_rate": -5}}, schema, raise_on_error=True)


def test_the_form_of_a_run_has_every_knob_of_every_method() -> None:
    schema = parameter_schema(unlearn.fn).model_dump()

    def run(method: dict[str, object]) -> dict[str, object]:
        return {"run": {"dataset": {"kind": "sample"}, "backbone": {"kind": "tiny_t5"}, "method": method}}

    validate(run({"kind": "e2urec", "suppression": 3, "training": {"num_epochs": 1}}), schema, raise_on_error=True)
    for wrong in ({"kind": "e2urec", "strength": 1}, {"kind": "undial", "training": {"num_epochs": 0}}, {"kind": "e2ure"}):
        with pytest.raises(Exception, match=r"run.method"):
            validate(run(wrong), schema, raise_on_error=True)
