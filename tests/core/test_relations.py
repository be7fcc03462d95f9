"""What is measured between tables: a spoiled artifact breaks the one number that is about its fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from data_contracts.expectations import violations
from e2urec_core import stages
from e2urec_core.artifacts import Artifact, Examples, ForgetRequest, Interactions, Scores, TeacherLogits, Tokens
from e2urec_core.backbones.base import Backbone
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.relations import relations

SMALL = {"kind": "tiny_t5", "width": 16, "num_layers": 1, "num_heads": 2, "inner_width": 32, "vocabulary": 320}
Folders = dict[type[Artifact], Path]


@pytest.fixture(scope="module")
def folders(tiny_interactions: Path, tiny_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The tiny artifacts up to the tokens, and made-up outputs and scores."""
    made: Folders = {Interactions: tiny_interactions, Examples: tiny_folders[0], ForgetRequest: tiny_folders[1]}
    made |= {kind: tmp_path_factory.mktemp(kind.kind) for kind in (Tokens, TeacherLogits, Scores)}
    stages.tokenise(made[Examples], made[Interactions], PromptRule(), Backbone.model_validate(SMALL), made[Tokens])
    rows = pl.read_parquet(made[Tokens] / "tokens.parquet").join(pl.read_parquet(made[ForgetRequest] / "parts.parquet"), on="example_id")
    rows.filter(part="forgotten").select("example_id", "label").write_parquet(made[TeacherLogits] / "forgotten.parquet")
    rows.head(20).select("example_id", "label").write_parquet(made[Scores] / "scores.parquet")
    return made


def broken(folders: Folders, kind: type[Artifact], place: Path | None = None) -> dict[str, int]:
    """Rules of the artifact's relations that are broken."""
    told = {}
    for contract, table in relations(kind, place or folders[kind], folders):
        told |= {violation.rule.split(" ")[0]: table[violation.rule.split(" ")[0]][0].as_py() for violation in violations(contract, table)}
    return told


@pytest.mark.parametrize("kind", [Examples, ForgetRequest, Tokens, TeacherLogits, Scores], ids=lambda kind: kind.__name__)
def test_what_the_stages_wrote_keeps_its_relations(folders: Folders, kind: type[Artifact]) -> None:
    assert len(list(relations(kind, folders[kind], folders))) == 1
    assert broken(folders, kind) == {}


def first(column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The table with another value in the first row."""
    return lambda rows: rows.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value, rows.schema[column])).otherwise(column).alias(column)
    )


@pytest.mark.parametrize(
    ("kind", "file", "spoil", "rule", "count"),
    [
        (Examples, "examples.parquet", first("split", "test"), "leaking_rows", None),
        (Examples, "examples.parquet", first("example_id", 1), "unknown_examples", 1),
        (Examples, "examples.parquet", lambda rows: rows.with_columns(item=pl.col("history").list.last()), "candidates_in_history", None),
        (
            Examples,
            "examples.parquet",
            lambda rows: rows.with_columns(history=pl.col("history").list.slice(1)),
            "uneven_histories",
            None,
        ),
        (Examples, "examples.parquet", first("split", "holdout"), "held_out_users_in_training", 1),
        (ForgetRequest, "parts.parquet", lambda rows: rows.reverse(), "misplaced_marks", None),
        (ForgetRequest, "parts.parquet", lambda rows: rows.tail(-3), "misplaced_marks", 3),
        (Tokens, "tokens.parquet", first("label", 7), "misplaced_rows", 1),
        (Tokens, "tokens.parquet", lambda rows: rows.tail(-2), "misplaced_rows", 2),
        (TeacherLogits, "forgotten.parquet", first("example_id", 1), "unknown_rows", 1),
        (TeacherLogits, "forgotten.parquet", lambda rows: rows.tail(-2), "missing_rows", 2),
        (TeacherLogits, "forgotten.parquet", first("label", 7), "differing_labels", 1),
        (Scores, "scores.parquet", first("label", 7), "differing_labels", 1),
    ],
)
def test_a_fault_between_tables_is_counted_under_its_name(
    folders: Folders,
    tmp_path: Path,
    kind: type[Artifact],
    file: str,
    spoil: Callable[[pl.DataFrame], pl.DataFrame],
    rule: str,
    count: int | None,
) -> None:
    place = tmp_path / "spoiled"
    shutil.copytree(folders[kind], place)
    spoil(pl.read_parquet(place / file)).write_parquet(place / file)
    told = broken(folders, kind, place)
    assert rule in told
    assert count is None or told[rule] == count


def test_one_user_on_both_sides_of_a_request_is_counted(folders: Folders, tmp_path: Path) -> None:
    place = tmp_path / "spoiled"
    shutil.copytree(folders[ForgetRequest], place)
    marks = pl.read_parquet(place / "parts.parquet")
    at = int((marks["part"] == "forgotten").arg_max())
    spoiled = marks.with_columns(part=pl.when(pl.int_range(pl.len()) == at).then(pl.lit("retained")).otherwise("part"))
    spoiled.write_parquet(place / "parts.parquet")
    assert broken(folders, ForgetRequest, place) == {"users_forgotten_and_retained": 1, "gone_rows_marked_otherwise": 1}


def test_a_row_that_goes_and_is_not_marked_so_is_counted(folders: Folders, tmp_path: Path) -> None:
    place = tmp_path / "spoiled"
    shutil.copytree(folders[ForgetRequest], place)
    gone = pl.read_parquet(place / "gone.parquet")
    stays = pl.read_parquet(place / "parts.parquet").filter(part="retained").select("example_id").head(1)
    pl.concat([gone.tail(-2), stays]).write_parquet(place / "gone.parquet")
    # Two are marked and do not go, one goes and is not marked.
    assert broken(folders, ForgetRequest, place) == {"gone_rows_marked_otherwise": 3}


def test_an_answer_at_the_end_of_the_prompts_is_seen_as_another_ending(folders: Folders, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    place = tmp_path / "told"
    shutil.copytree(folders[Tokens], place)
    tokenizer = Tokenizer.from_str((place / "tokenizer.json").read_text())
    yes, no = (tokenizer.token_to_id(word) for word in ("Yes", "No"))
    answer = pl.when(pl.col("label") == 1).then(pl.lit([yes])).otherwise(pl.lit([no])).cast(pl.List(pl.Int32))
    rows = pl.read_parquet(place / "tokens.parquet").with_columns(token_ids=pl.col("token_ids").list.concat(answer))
    rows.write_parquet(place / "tokens.parquet")
    assert broken(folders, Tokens, place)["further_endings"] == 1


def test_a_part_that_is_far_smaller_than_asked_is_noticed(folders: Folders, tmp_path: Path) -> None:
    import json

    place = tmp_path / "short"
    shutil.copytree(folders[Examples], place)
    told = json.loads((place / "facts.json").read_text())
    (place / "facts.json").write_text(json.dumps({**told, "train_share": 0.95, "validation_share": 0.01}))
    # 0.6 of the rows train, 0.35 less than asked
    assert set(broken(folders, Examples, place)) == {"train_share_lost"}
