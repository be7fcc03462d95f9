"""The card of a released recommender: what it is, what it was made from and by which gates it went, for people who were not there."""

from __future__ import annotations

from typing import Annotated

import jinja2
from pydantic import Field, StringConstraints

from e2urec_core.settings import Settings

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# No slash, so no path; no bar and no line break, so a cell of a table.
Word = Annotated[str, StringConstraints(pattern=r"^[^/\\|\r\n]{1,100}$")]

LIMITS = (
    "This card claims the process and the measured gates, not that forgetting is mathematically certain. The scores are estimates "
    "from past behaviour; they are not advice about a person, and say nothing of people unlike those it was trained on."
)


class GateRow(Settings):
    """One gate's verdict."""

    name: Word
    """What the gate measures."""
    value: float | None = None
    """What was measured; none where it could not be."""
    bound: Word | None = None
    """What it must be, such as `at most 0.03`; none where the gate knows only yes and no."""
    margin: float | None = None
    """How far the value lies on the good side of the bound; below 0 on the other."""
    passed: bool
    """Whether the gate lets the recommender pass."""


class CardFacts(Settings):
    """What the card says that no other input of a bundle holds."""

    backbone: Word
    """Kind of the backbone."""
    method: Word | None = None
    """Kind of the unlearning method; none where it was trained on everybody."""
    requests: tuple[Digest, ...] = ()
    """Digests of the requests that it has carried out, oldest first; nobody can tell a person from them."""
    measures: dict[Word, float] = Field(default_factory=dict)
    """Measured on its test rows, by name."""


class ModelCard(CardFacts):
    """All that the card says."""

    model: Digest
    """Digest of the recommender."""
    parameters: int = Field(ge=1)
    """Numbers in its weights."""
    interactions: Digest
    """Digest of the stored interactions."""
    examples: Digest
    """Digest of the examples."""
    tokens: Digest
    """Digest of the tokens."""
    gates: tuple[GateRow, ...] = ()
    """The gates' verdicts, in their order."""
    seed: int
    """Seed of everything that was drawn."""
    versions: dict[Word, Word]
    """Versions of the packages that serve it, by name."""

    def markdown(self) -> str:
        """The card as a page."""
        environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters["number"] = lambda value: "-" if value is None else f"{value:.6g}"
        return environment.from_string(TEMPLATE).render(card=self, limits=LIMITS)


TEMPLATE = """\
# Recommender {{ card.model[:12] }}

A `{{ card.backbone }}` network that says how likely a person is to like an item,
{{ "after the method `" ~ card.method ~ "` has made it forget" if card.method else "trained on everybody" }}.

| | |
|---|---|
| recommender | `{{ card.model }}` |
| parameters | {{ "{:,}".format(card.parameters) }} |
| interactions | `{{ card.interactions }}` |
| examples | `{{ card.examples }}` |
| tokens | `{{ card.tokens }}` |
| seed | {{ card.seed }} |

## Requests that it has carried out

{% for request in card.requests %}
- `{{ request }}`
{% else %}
None.
{% endfor %}

## Gates

{% if card.gates %}
| gate | value | bound | margin | passed |
|---|---|---|---|---|
{% for gate in card.gates %}
{% set passed = "yes" if gate.passed else "no" %}
| {{ gate.name }} | {{ gate.value | number }} | {{ gate.bound or "-" }} | {{ gate.margin | number }} | {{ passed }} |
{% endfor %}
{% else %}
None were asked.
{% endif %}

## Measures

{% for name, value in card.measures.items() %}
- {{ name }}: {{ value | number }}
{% else %}
None were noted.
{% endfor %}

## Use

```python
import pandas
from mlflow.pyfunc import load_model

model = load_model(".")  # this folder
rows = pandas.DataFrame([{"history": [{"title": "...", "rating": 4}], "candidates": ["...", "..."]}])
model.predict(rows, params={"top": 1})  # row, rank, candidate, yes_probability
```

A row holds a ready `prompt`; or `history` (oldest first, titles with or without a rating), `profile` where there is one, and one
`candidate` or several `candidates`. Rows of one request are of one form. `mlflow models serve -m . --env-manager local` answers the
same over HTTP. The folder holds weights in safetensors, JSON, and two Python files that MLflow runs; nothing is unpickled.

{% for name, version in card.versions.items() %}
- {{ name }} {{ version }}
{% endfor %}

## Limits

{{ limits }}
"""
