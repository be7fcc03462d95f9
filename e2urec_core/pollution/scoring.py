"""The stage that scores every training row with a network that never trained on its user; see `stages.py`, where it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.notes import note

if TYPE_CHECKING:
    import numpy

    from e2urec_core.backbones.base import Backbone
    from e2urec_core.engine import Bench
    from e2urec_core.pollution.evidence import HeldOut
    from e2urec_core.pollution.folds import OtherFolds
    from e2urec_core.pollution.rule import FoldRule


def fold_scores(tokens: Path, before: Path | None, backbone: Backbone, folds: FoldRule, bench: Bench, place: Path) -> int:
    """Score every training row with a network that never trained on its user; writes `held_out.parquet`.

    Args:
        tokens: Folder of the tokens.
        before: Folder of the round before, if there was one; whom it suspects trains no network.
        backbone: The network.
        folds: How.
        bench: Seed, device, watcher, checkpoints.
        place: Folder to write into.

    Raises:
        BadSetting: See `into_folds`.
        MissingPackage: There was a round before, and cleanlab is not installed.
    """
    from e2urec_core.data.tokens import load_tokenizer, prompts_of_split
    from e2urec_core.pollution.folds import held_out_answers, into_folds

    rows, validation = (prompts_of_split(tokens, split) for split in ("train", "validation"))
    start = backbone.build(load_tokenizer(tokens), bench.seed)
    start.network.to(bench.device)
    divided = into_folds(rows, validation, folds, bench, suspected(read_held_out(before), folds) if before else None)
    yes = held_out_answers(divided, start, folds, bench)
    if bench.workers.is_main:
        _write(divided, yes, place)
        note(place, users=len(divided.partition.users), set_aside=len(divided.set_aside))
    return len(rows)


def _write(divided: OtherFolds, yes: numpy.ndarray, place: Path) -> None:
    import numpy
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_contracts.held_out import HELD_OUT
    from e2urec_core.data.places import HELD_OUT as FILE
    from e2urec_core.sharding.partition import users_of

    users, schema = users_of(divided.rows), HELD_OUT.schema()
    fold, aside = divided.partition.places(users)[0], numpy.isin(users, divided.set_aside)
    columns = [divided.rows.example_ids, users, fold, aside, divided.rows.labels, yes]
    arrays = [pa.array(column.astype(field.type.to_pandas_dtype())) for column, field in zip(columns, schema, strict=True)]
    # Statistics would put numbers of users into the footer, where a scan for them must look too.
    pq.write_table(pa.table(arrays, schema=schema), place / FILE, write_statistics=False, write_page_checksum=True)


def read_held_out(folder: Path) -> HeldOut:
    """What `fold_scores` wrote."""
    import pyarrow.parquet as pq

    from e2urec_core.data.places import HELD_OUT as FILE
    from e2urec_core.pollution.evidence import HeldOut

    table = pq.read_table(folder / FILE)
    return HeldOut(*(table[name].to_numpy() for name in ("example_id", "user", "label", "yes_probability")))


def suspected(held: HeldOut, folds: FoldRule) -> numpy.ndarray:
    """Numbers of the users who train no network in the next round, rising.

    Raises:
        MissingPackage: cleanlab is not installed.
    """
    from e2urec_core.pollution.evidence import evidence

    found = evidence(held, folds.quality)
    return found.users[found.q < folds.set_aside_below]
