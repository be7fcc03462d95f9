"""The recommender as MLflow serves it: a model made from code, which reads safetensors and JSON and needs nothing of this project.

The file is copied beside the weights when a model is saved, so it imports only published packages. MLflow reads type hints of
`predict` as the model's signature, so there are none: the signature is saved beside it. It leaves `history` and `candidates` open,
because MLflow would refuse a whole number for a rating and turn a null among titles into a title, so every field is checked here.
"""

import importlib.util
import json
import math
import numbers
import re
import uuid
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel
from tokenizers import Tokenizer

FORMS = ("prompt", "candidate", "candidates")
# Letters; what is longer than the model's own longest title is cut as in training, but a whole book is no title.
MOST_LETTERS = 10_000
# JSON can hold one half of a pair of code units, which is no text.
HALF = re.compile("[\ud800-\udfff]")


class Recommender(PythonModel):
    """p(Yes) of ready prompts, or of a person's history and one or several candidates."""

    def load_context(self, context):
        folder = Path(context.artifacts["bundle"])
        networks = _module_of(context.artifacts["networks"])
        self.scorer = networks.open_scorer(folder)
        self.tokenizer = Tokenizer.from_file(str(networks.first_part(folder) / "tokenizer.json"))
        self.writer = Writer(json.loads((folder / "prompt.json").read_text()), self.tokenizer)

    def predict(self, context, model_input, params=None):
        top = (params or {}).get("top", 0)
        _hold(top >= 0, f"`top` is {top}, and must be 0 for all candidates or a number of them")
        rows = model_input.to_dict("records")
        form = form_of(rows)
        if form == "prompt":
            prompts = [_text(row["prompt"], f"`prompt` of row {number}", math.inf) for number, row in enumerate(rows)]
            scores = self.scores([made.ids for made in self.tokenizer.encode_batch_fast(prompts)], range(len(rows)))
            return pd.DataFrame({"yes_probability": scores}, index=model_input.index)
        asked = [(number, *one) for number, row in enumerate(rows) for one in self.writer.told(number, row, form)]
        owners = [number for number, *_ in asked]
        scores = self.scores(self.writer.encoded([one for _, *one in asked], owners), owners)
        if form == "candidate":
            return pd.DataFrame({"yes_probability": scores}, index=model_input.index)
        names = [name for row in rows for name in row["candidates"]]
        return best_first(pd.DataFrame({"row": owners, "candidate": names, "yes_probability": scores}), top)

    def scores(self, encoded, owners):
        """p(Yes) of token ids; prompts that occur twice are scored once, so that equal candidates tie."""
        for ids, number in zip(encoded, owners, strict=True):
            _hold(ids, f"the prompt of row {number} holds no token")
        places = {}
        where = [places.setdefault(tuple(ids), len(places)) for ids in encoded]
        return self.scorer.scores(list(places))[where]


class Writer:
    """Writes prompts as training wrote them."""

    def __init__(self, told, tokenizer):
        """Take the wording from `told`, what `prompt.json` holds; the tokenizer's truncation, if any, is the limit."""
        self.told_by = told
        self.limit = tokenizer.truncation["max_length"] if tokenizer.truncation else None
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()

    def told(self, number, row, form):
        """The profile or None, the events of the history and a candidate, for each candidate of the row."""
        profile, history = row.get("profile"), row.get("history")
        profile = None if _missing(profile) else _text(profile, f"`profile` of row {number}")
        _hold(not _missing(history), f"row {number} has no `history`; of a person who is not known yet, give an empty list")
        _hold(isinstance(history, list | tuple | np.ndarray), f"`history` of row {number} is no list")
        events = [self.event(item, f"item {place} of `history` of row {number}") for place, item in enumerate(history)]
        asked, what = (
            (row[form], f"`candidates` of row {number}") if form == "candidates" else ([row[form]], f"`candidate` of row {number}")
        )
        _hold(isinstance(asked, list | tuple | np.ndarray) and len(asked) > 0, f"{what} is no list of at least one title")
        titles = [self.cut(_text(title, f"{what} (place {place})")) for place, title in enumerate(asked)]
        return [(profile, events[-self.told_by["history_length"] :], title) for title in titles]

    def event(self, item, what):
        """One item of a history in words: a title with or without a rating; where the rating is missing, the title alone."""
        if not isinstance(item, dict):
            item = {"title": item}
        _hold(set(item) <= {"title", "rating"}, f"{what} holds more than `title` and `rating`")
        title, rating = self.cut(_text(item.get("title"), f"`title` of {what}")), item.get("rating")
        if rating is not None:
            rating = _rating(rating, f"`rating` of {what}")
        event = self.told_by["event"]
        if "{rating}" not in event:
            start, end = event.split("{title}")
            return f"{start}{title}{end}"
        pieces = event.replace("{title}", "\0title\0").replace("{rating}", "\0rating\0").split("\0")
        return title if rating is None else "".join({"title": title, "rating": rating}.get(piece, piece) for piece in pieces)

    def cut(self, title):
        """The title as prompts show it: longer ones end in three points."""
        longest = self.told_by["longest_title"]
        return title if len(title) <= longest else title[: longest - 3] + "..."

    def write(self, profile, events, candidate):
        """A prompt; a part whose profile is missing drops out."""
        values = {"profile": profile, "history": ", ".join(events) if events else self.told_by["nothing"], "candidate": candidate}
        parts = [(values[field] if field else "", before, after) for field, before, after in self.told_by["parts"]]
        return " ".join(f"{before}{value}{after}" for value, before, after in parts if value is not None)

    def encoded(self, asked, owners):
        """Token ids of prompts; one that is too long loses the oldest items of its history until it fits, never its end."""
        made = self.tokens(asked, [0] * len(asked))
        long = [place for place, ids in enumerate(made) if self.limit is not None and len(ids) > self.limit]
        some, low, high = [asked[place] for place in long], [0] * len(long), [len(asked[place][1]) for place in long]
        # Halving the range: the fewest items left out with which a prompt fits.
        while low != high:
            middle = [(one + other) // 2 for one, other in zip(low, high, strict=True)]
            fits = [len(ids) <= self.limit for ids in self.tokens(some, middle)]
            bounds = list(zip(fits, low, middle, high, strict=True))
            low = [at if fit else min(half + 1, most) for fit, at, half, most in bounds]
            high = [half if fit else most for fit, _, half, most in bounds]
        for place, ids in zip(long, self.tokens(some, high), strict=True):
            _hold(
                len(ids) <= self.limit, f"row {owners[place]} has {len(ids):,} tokens without any history; the model reads {self.limit:,}"
            )
            made[place] = ids
        return made

    def tokens(self, asked, left_out):
        """Token ids of prompts without the `left_out` oldest items of each history."""
        texts = [self.write(profile, events[out:], title) for (profile, events, title), out in zip(asked, left_out, strict=True)]
        return [made.ids for made in self.tokenizer.encode_batch_fast(texts)]


def form_of(rows):
    """Which of `FORMS` all rows are of."""
    _hold(rows, "the request holds no row")
    forms = [[name for name in FORMS if not _missing(row.get(name))] for row in rows]
    for number, (row, form) in enumerate(zip(rows, forms, strict=True)):
        _hold(len(form) == 1, f"row {number} holds {_names(form)}; it must hold one of {_names(FORMS)}")
        _hold(form == forms[0], f"row 0 holds `{forms[0][0]}` and row {number} `{form[0]}`; send rows of two forms in two requests")
        beside = [name for name in ("profile", "history") if form == ["prompt"] and not _missing(row.get(name))]
        _hold(not beside, f"row {number} holds {_names(beside)} beside a ready `prompt`")
    return forms[0][0]


def best_first(asked, top):
    """Candidates by row, the likeliest first, ties in the order given; at most `top` of each row, 0 for all."""
    order = np.lexsort((-asked["yes_probability"].to_numpy(), asked["row"].to_numpy()))
    ranked = asked.iloc[order].reset_index(drop=True)
    ranked.insert(1, "rank", ranked.groupby("row").cumcount() + 1)
    return ranked[ranked["rank"] <= top].reset_index(drop=True) if top else ranked


def _text(value, what, most=MOST_LETTERS):
    _hold(isinstance(value, str), f"{what} is {'missing' if _missing(value) else 'no text'}")
    _hold(value.strip(), f"{what} is blank")
    _hold(len(value) <= most, f"{what} has {len(value):,} letters; at most {most:,} are read")
    _hold(not HALF.search(value), f"{what} holds half a character")
    return value


def _rating(value, what):
    """A rating as people write it: 4, 3.5; one digit after the point at most."""
    _hold(isinstance(value, numbers.Real) and not isinstance(value, bool), f"{what} is no number")
    # In training, ratings are 32-bit floats; a whole number too large for any float is as infinite.
    with np.errstate(over="ignore"):
        stars = float(np.float32(value)) if abs(value) < 1e300 else math.inf
    _hold(math.isfinite(stars), f"{what} is not finite; leave it out or give null where there is none")
    return f"{stars + 0.0:.1f}".removesuffix(".0")


def _missing(value):
    """Whether a field is not there, as pandas and JSON say it."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _names(fields):
    return " and ".join(f"`{name}`" for name in fields) or "none of the fields"


def _hold(fact, otherwise):
    """Refuse the request, which a server answers with 400, unless the fact holds."""
    if not fact:
        raise MlflowException.invalid_parameter_value(otherwise)


def _module_of(path):
    """The file beside, under a name of its own, as MLflow names this one: several models may be loaded in one process."""
    spec = importlib.util.spec_from_file_location(f"served_networks_{uuid.uuid4().hex}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mlflow.models.set_model(Recommender())
