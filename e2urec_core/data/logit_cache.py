"""Reads what the teachers said, row group by row group, in shuffled passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data_contracts.teacher_logits import Part
from e2urec_core.data import draws
from e2urec_core.data.batches import Prompts, pass_order
from e2urec_core.data.teacher_scoring import FILES, OUTPUTS, STATES, Stamp, facts_of, num_planned, tensor_of
from e2urec_core.engine import Read
from e2urec_core.errors import StaleCache
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import CacheRule


class TeacherCache:
    """The teachers' outputs on the rows of one request."""

    def __init__(self, retained: Path, forgotten: Path, rows: dict[Part, Prompts], stamps: dict[Part, Stamp], rule: CacheRule) -> None:
        """Open the outputs for the rows of a request.

        Args:
            retained: Folder of `original.parquet`.
            forgotten: Folder of `forgotten.parquet`.
            rows: The request's forgotten and retained training rows.
            stamps: What the files must belong to.
            rule: What is kept, and how many retained rows.

        Raises:
            StaleCache: They were made from other weights, another tokenizer or other rows, or there are too few.
        """
        self.rule, self._rows = rule, rows
        folders: dict[Part, Path] = {"forgotten": forgotten, "retained": retained}
        self._files = {part: pq.ParquetFile(folder / FILES[part], page_checksum_verification=True) for part, folder in folders.items()}
        for part, file in self._files.items():
            self._refuse_another(part, facts_of(file.schema_arrow), stamps[part])
        self._by_id = {part: numpy.argsort(rows[part].example_ids) for part in folders}
        # A group of the original's outputs also holds rows that this request forgets; they are passed over.
        self._found = {part: [self._find(part, group) for group in range(file.num_row_groups)] for part, file in self._files.items()}
        wanted: dict[Part, int] = {
            "forgotten": len(rows["forgotten"]),
            "retained": num_planned(len(rows["retained"]), len(rows["forgotten"]), rule),
        }
        for part, least in wanted.items():
            if self.num_rows(part) < least:
                raise StaleCache(
                    f"the teacher cache holds {self.num_rows(part):,} of {least:,} {part} rows",
                    hint="run the stages `cache-original` and `cache-teachers` again",
                )

    def num_rows(self, part: Part) -> int:
        """Rows of `part` that can be drawn."""
        return sum(len(index) for index, _ in self._found[part])

    def num_batches(self, part: Part, batch_size: int) -> int:
        """Batches in one pass over `part`."""
        return sum(-(-len(index) // batch_size) for index, _ in self._found[part])

    def batches(self, part: Part, batch_size: int, seed: int, number: int) -> Iterator[draws.Part]:
        """Every row of `part` once, in the order of pass `number`; each row group is decoded once."""
        rows = self._rows[part]
        for group in numpy_generator(seed, f"{part}-groups-{number}").permutation(len(self._found[part])):
            index, places = self._found[part][group]
            if not len(index):
                continue
            table = self._files[part].read_row_group(int(group)).combine_chunks()
            outputs = {name: tensor_of(table, name) for name in OUTPUTS if name in table.column_names}
            states = self._states(part, table) if self.rule.encoder_states else None
            for chosen in pass_order(rows.lengths_at(index), batch_size, seed, number, purpose=f"{part}-group-{group}"):
                beside = {name: values[torch.from_numpy(places[chosen])] for name, values in outputs.items()}
                yield draws.Part(rows, index[chosen], len(chosen), beside, states.take(places[chosen]) if states else None)

    def endless(self, part: Part, batch_size: int, seed: int, first: int) -> Iterator[draws.Part]:
        """Passes over `part` one after another, from batch `first` of the first pass on."""
        whole, skipped = divmod(first, self.num_batches(part, batch_size))
        passes = (self.batches(part, batch_size, seed, number) for number in itertools.count(whole))
        return itertools.islice(itertools.chain.from_iterable(passes), skipped, None)

    def read(self, read: Read, piece: draws.Loaded) -> Tensor:
        """A student's logits, all rows in one forward pass: of every word, or of the kept ones and of all others together.

        Where the outputs are kept on some words only, the others are never laid out in a matrix.
        """
        if self.rule.support == "full":
            return read(piece.batch, states=piece.states)
        support = torch.cat([piece.beside[part]["support"] for part in piece.rows])
        return read(piece.batch, support, "logsumexp", piece.states)

    def compared(self, logits: Tensor) -> Tensor:
        """The columns of `read` on which a student is compared with the teachers, (row, support)."""
        return logits[:, :2] if self.rule.support == "answers" else logits

    def columns(self, beside: Mapping[str, Tensor], answers: Tensor) -> Tensor:
        """In which column the words `answers` (row,) of each row stand."""
        if self.rule.support == "full":
            return answers
        return (beside["support"] == answers[:, None]).int().argmax(dim=1)

    def _states(self, part: Part, table: pa.Table) -> draws.States:
        facts = facts_of(self._files[part].schema_arrow)
        array = table["states"].chunk(0)
        _, offsets, values = array.buffers()
        starts = numpy.frombuffer(offsets, numpy.int64)[array.offset : array.offset + len(array) + 1]
        kind, width = STATES[str(facts["precision"])], int(str(facts["state_width"]))
        flat = torch.frombuffer(values, dtype=torch.uint8).view(kind).view(-1, width)
        token = width * kind.itemsize
        return draws.States(flat, starts[:-1] // token, numpy.diff(starts) // token)

    def _find(self, part: Part, group: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Positions of a group's rows among the request's rows of `part`, and their places in the group."""
        ids = self._files[part].read_row_group(group, columns=["example_id"])["example_id"].to_numpy()
        known, order = self._rows[part].example_ids, self._by_id[part]
        at = order[numpy.minimum(numpy.searchsorted(known, ids, sorter=order), len(known) - 1)]
        places = numpy.flatnonzero(known[at] == ids)
        return at[places], places

    def _refuse_another(self, part: Part, facts: dict[str, object], stamp: Stamp) -> None:
        kept_how = self.rule.model_copy(update={"retained_per_forgotten": None, "least_retained": 0}).canonical()
        expected = {"original": stamp.original, "augmented": stamp.augmented, "tokenizer": stamp.tokenizer, "rule": kept_how}
        for name, value in {**expected, "rows": stamp.rows}.items():
            if facts[name] != value:
                raise StaleCache(
                    f"the teacher cache of {part} rows was made from {'other' if name == 'rows' else 'another'} {name}",
                    facts={"cache has": str(facts[name])[:12], "at hand": str(value)[:12]},
                    hint="run the stages `cache-original` and `cache-teachers` again",
                )
