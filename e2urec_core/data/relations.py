"""Measures how the tables of an artifact relate to those it was made from: the numbers that the contracts in `relations` are about.

All of it is whole-column arithmetic on numbers; texts and users are compared as dictionary codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.relations import EXAMPLES_RELATION, LOGITS_RELATION, REQUEST_RELATION, SCORES_RELATION, TOKENS_RELATION
from e2urec_core.artifacts import Artifact, Examples, ForgetRequest, Interactions, OriginalLogits, Retold, Scores, TeacherLogits, Tokens
from e2urec_core.data.places import EXAMPLES, FACTS, GONE, MARKS, NAMED, SCORES, TOKENIZER, TOKENS, USERS, part_files
from e2urec_core.data.split import SPLITS

if TYPE_CHECKING:
    from data_contracts.contract import Contract

Folders = Mapping[type[Artifact], Path]
ROWS_AT_A_TIME = 250_000
MOST_LOOKED_UP = 1_000_000
DECODED = 200
"""Prompts that are turned back into text to look at their endings."""


def relations(kind: type[Artifact], place: Path, parents: Folders) -> Iterator[tuple[Contract, pa.Table]]:
    """The contracts on numbers between an artifact in `place` and its parents, with these numbers."""
    measure, contract = MEASURES.get(kind, (None, None))
    if measure is not None and contract is not None and (numbers := measure(place, parents)) is not None:
        yield contract, pa.table({name: [numbers[name]] for name in contract.column_names}, schema=contract.schema())


def _of_examples(place: Path, parents: Folders) -> dict[str, float] | None:
    if Interactions not in parents:
        return None
    times: dict[str, list[numpy.ndarray]] = {part: [] for part in SPLITS}
    users: dict[str, list[pa.Array]] = {part: [] for part in SPLITS}
    ids: list[numpy.ndarray] = []
    file = pq.ParquetFile(place / EXAMPLES, read_dictionary=["user_id", "split"])
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=["example_id", "user_id", "timestamp_s", "split"]):
        ids.append(batch["example_id"].to_numpy())
        for part in SPLITS:
            chosen = pc.equal(batch["split"], part)
            times[part].append(batch["timestamp_s"].filter(chosen).to_numpy())
            users[part].append(pc.unique(batch["user_id"].filter(chosen)).dictionary_decode())
    whole = {part: numpy.concatenate(moments) for part, moments in times.items()}
    trained, held = (pc.unique(pa.concat_arrays([each for part in parts for each in users[part]])) for parts in (SPLITS[:2], SPLITS[3:]))
    pairs = (("train", "validation"), ("validation", "test"))
    return {
        **_histories(file),
        **_shares_lost(whole, json.loads((place / FACTS).read_bytes())),
        "leaking_rows": sum(int((whole[one] >= whole[other].min()).sum()) for one, other in pairs if len(whole[other])),
        "held_out_users_in_training": _shared(held, trained),
        "unknown_examples": _unknown(numpy.concatenate(ids), parents[Interactions]),
    }


def _histories(file: pq.ParquetFile) -> dict[str, float]:
    """Faults inside of histories; of large tables in row groups spread over them."""
    groups = numpy.arange(file.num_row_groups)[:: 1 + file.metadata.num_rows // MOST_LOOKED_UP]
    counts: dict[str, float] = {"candidates_in_history": 0, "uneven_histories": 0}
    for group in groups:
        table = file.read_row_group(int(group), columns=["item", "history", "history_ratings"]).combine_chunks()
        history, ratings = (pc.list_value_length(table[name]).to_numpy() for name in ("history", "history_ratings"))
        counts["uneven_histories"] += int((history != ratings).sum())
        shown = pc.list_flatten(table["history"]).to_numpy()
        counts["candidates_in_history"] += int((shown == numpy.repeat(table["item"].to_numpy(), history)).sum())
    return counts


def _unknown(ids: numpy.ndarray, interactions: Path) -> int:
    """How many numbers no stored interaction bears; of large tables among those that a step divides, on both sides."""
    step = 1 + len(ids) // MOST_LOOKED_UP
    stored = [pq.read_table(part, columns=["interaction_id"])[0].to_numpy() for part in part_files(interactions)]
    known = numpy.concatenate([some[some % step == 0] for some in stored])
    return int((~numpy.isin(ids[ids % step == 0], known)).sum())


def _shares_lost(times: Mapping[str, numpy.ndarray], told: Mapping[str, float]) -> dict[str, float]:
    """By how much the parts fall short of what was asked; nothing where rows were taken out since, as the cuts stay where they were."""
    if told.get("pruned"):
        return {"train_share_lost": 0.0, "validation_share_lost": 0.0}
    early = numpy.concatenate([moments for part, moments in times.items() if part != "test"])
    first_validation, first_test = (int((early < told[name]).sum()) for name in ("cut_validation_s", "cut_test_s"))
    asked, rows = told["train_share"], max(1, told["rows"])
    return {
        "train_share_lost": max(0.0, asked - (first_validation + 1) / rows),
        "validation_share_lost": max(0.0, asked + told["validation_share"] - (first_test + 1) / rows),
    }


def _of_request(place: Path, parents: Folders) -> dict[str, float] | None:
    if Examples not in parents:
        return None
    rows = pq.read_table(parents[Examples] / EXAMPLES, columns=["example_id", "user_id", "split"], read_dictionary=["user_id"])
    marks = pq.read_table(place / MARKS, columns=["example_id", "part"])
    if marks.num_rows != rows.num_rows:
        return {**dict.fromkeys(REQUEST_RELATION.column_names, 0), "misplaced_marks": abs(marks.num_rows - rows.num_rows)}
    users = {part: pc.unique(rows["user_id"].filter(pc.equal(marks["part"], part)).cast(pa.string())) for part in ("forgotten", "retained")}
    held = pc.unique(rows["user_id"].filter(pc.equal(rows["split"], "holdout")).cast(pa.string()))
    ids = rows["example_id"].to_numpy()
    gone = numpy.isin(ids, pq.read_table(place / GONE)[0].to_numpy())
    forgotten, other = (pc.starts_with(marks["part"], part).to_numpy() for part in ("forgotten", "other"))
    anew = pq.read_table(place / EXAMPLES, columns=["example_id"])[0].to_numpy() if (place / NAMED).exists() else ids[:0]
    return {
        "misplaced_marks": int((ids != marks["example_id"].to_numpy()).sum()),
        "users_forgotten_and_retained": _shared(_whole(place, users["forgotten"]), users["retained"]),
        "held_out_users_forgotten": _shared(users["forgotten"], held),
        "forgotten_rows_told_anew": int((~numpy.isin(anew, ids[~(gone | forgotten)])).sum()),
        # Rows of users who are held out are marked `other` whether they go or stay.
        "gone_rows_marked_otherwise": int(((gone != forgotten) & ~other).sum()),
    }


def _whole(request: Path, forgotten: pa.Array) -> pa.Array:
    """The users of whom no training row may stay: of whoever asks for single interactions the other rows do."""
    if not (request / NAMED).exists():
        return forgotten
    return pq.read_table(request / USERS)[0].cast(pa.string()) if (request / USERS).exists() else forgotten[:0]


def _of_tokens(place: Path, parents: Folders) -> dict[str, float] | None:
    if Examples not in parents:
        return None
    columns = ["example_id", "split", "label"]
    rows, made = (pq.read_table(folder / name, columns=columns) for folder, name in ((parents[Examples], EXAMPLES), (place, TOKENS)))
    if rows.num_rows != made.num_rows:
        return {"misplaced_rows": abs(rows.num_rows - made.num_rows), "further_endings": 0}
    differs = numpy.zeros(rows.num_rows, bool)
    for name in columns:
        differs |= pc.not_equal(rows[name].cast(made[name].type), made[name]).to_numpy()
    return {"misplaced_rows": int(differs.sum()), "further_endings": len(_endings(place)) - 1}


def _of_retold(place: Path, parents: Folders) -> dict[str, float] | None:
    return _of_tokens(place, {Examples: parents[ForgetRequest]}) if ForgetRequest in parents else None


def _endings(tokens: Path) -> set[str]:
    """The last words of some prompts, spread over the table."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str((tokens / TOKENIZER).read_text())
    file = pq.ParquetFile(tokens / TOKENS)
    spread = numpy.unique(numpy.linspace(0, file.num_row_groups - 1, 8).astype(int))
    texts: list[str] = []
    for group in spread:
        rows = file.read_row_group(int(group), columns=["token_ids"])["token_ids"]
        chosen = numpy.unique(numpy.linspace(0, len(rows) - 1, DECODED // len(spread)).astype(int))
        texts += tokenizer.decode_batch(rows.take(pa.array(chosen)).to_pylist(), skip_special_tokens=False)
    return {text.split()[-1] if text.split() else "" for text in texts}


def _of_logits(place: Path, parents: Folders, part: str) -> dict[str, float] | None:
    if Tokens not in parents or ForgetRequest not in parents:
        return None
    from e2urec_core.data.teacher_scoring import FILES

    tokens = pq.read_table(parents[Tokens] / TOKENS, columns=["example_id", "split", "label"])
    marks = pq.read_table(parents[ForgetRequest] / MARKS, columns=["part"])
    wanted = tokens.filter(pc.equal(marks["part"], part))
    made = pq.read_table(place / FILES["forgotten" if part == "forgotten" else "retained"], columns=["example_id", "label"])
    # What the original says of rows is kept for later requests, so rows that this one forgets may lie among them.
    known = wanted if part == "forgotten" else tokens.filter(pc.equal(tokens["split"], "train"))
    return {**_compared(made, known), "missing_rows": wanted.num_rows - made.num_rows if part == "forgotten" else 0}


def _of_scores(place: Path, parents: Folders) -> dict[str, float] | None:
    if Tokens not in parents:
        return None
    made = pq.read_table(place / SCORES, columns=["example_id", "label"])
    return _compared(made, pq.read_table(parents[Tokens] / TOKENS, columns=["example_id", "label"]))


def _compared(made: pa.Table, known: pa.Table) -> dict[str, float]:
    """Rows of `made` whose number is not known, and rows whose label is another."""
    ids, labels = known["example_id"].to_numpy(), known["label"].to_numpy()
    order = numpy.argsort(ids)
    mine = made["example_id"].to_numpy()
    if not len(ids):
        return {"unknown_rows": len(mine), "differing_labels": 0}
    at = order[numpy.minimum(numpy.searchsorted(ids, mine, sorter=order), len(ids) - 1)]
    found = ids[at] == mine
    return {"unknown_rows": int((~found).sum()), "differing_labels": int((labels[at] != made["label"].to_numpy())[found].sum())}


def _shared(one: pa.Array, other: pa.Array) -> int:
    return int(pc.sum(pc.is_in(one, value_set=other)).as_py() or 0)


Measure = Callable[[Path, Folders], dict[str, float] | None]
MEASURES: dict[type[Artifact], tuple[Measure, Contract]] = {
    Examples: (_of_examples, EXAMPLES_RELATION),
    ForgetRequest: (_of_request, REQUEST_RELATION),
    Tokens: (_of_tokens, TOKENS_RELATION),
    Retold: (_of_retold, TOKENS_RELATION),
    OriginalLogits: (lambda place, parents: _of_logits(place, parents, "retained"), LOGITS_RELATION),
    TeacherLogits: (lambda place, parents: _of_logits(place, parents, "forgotten"), LOGITS_RELATION),
    Scores: (_of_scores, SCORES_RELATION),
}
