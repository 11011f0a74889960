"""The mask on its way: arrays, blocks that are done, blocks to write, and the end."""

import json
import threading
from collections.abc import Collection
from itertools import product
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import Store
from zarr.core.array_spec import ArrayConfigParams
from zarr.core.sync import sync

from ...tiler.box import Box
from ...tiler.errors import OutputError
from ..plan import Plan
from ..remote import RequestError
from ..unread import Unread
from .changed_blocks import begun_changed, changed_blocks, open_changed, write_changed
from .codecs import label_codec, score_codec
from .metadata import group_attributes
from .pyramid import block_levels, box_at, build_level, halve, level_shapes
from .records import Record, Records, create_records, read_records, write_record
from .store import OURS, ZarrArray, place, present_chunks, remove_cut_files
from .unread_places import all_places, read_unread, write_unread

# With this set, a chunk of one value is a file like any other, and a chunk's presence means that it
# was written. zarr does not store it: every array is opened through `_open`.
_CONFIG: ArrayConfigParams = {"write_empty_chunks": True}


class Mask:
    """The output of one plan in a store that the plan has claimed."""

    def __init__(self, store: Store, plan: Plan, *, alone: bool = True) -> None:
        """Open the mask, or begin it.

        Args:
            store: Where it is.
            plan: What it is made by.
            alone: Whether no other process writes it: what looks cut short is removed.
        """
        self.store, self.plan = store, plan
        self.place = place(store)
        """Where it is, for people."""
        if alone:
            remove_cut_files(store)
        shapes = level_shapes(plan.shape)
        self.group = zarr.open_group(store, mode="a", zarr_format=3)
        if OURS not in self.group.attrs:  # all of them in one write, which is the whole or none
            self.group = self.group.update_attributes(group_attributes(plan, len(shapes)))
        self.levels = [
            self._open(
                str(level),
                shape,
                plan.grid.chunk,
                plan.recipe.label_dtype,
                plan.recipe.not_computed,
                ("y", "x"),
                label_codec(plan.recipe.classes),
            )
            for level, shape in enumerate(shapes)
        ]
        self.block_levels = block_levels(plan.grid)
        self.scores: ZarrArray | None = None
        if plan.stored_scores:
            name, dtype = plan.stored_scores
            self.scores = self._open(
                name,
                (plan.recipe.classes, *plan.shape),
                (1, *plan.grid.chunk),
                dtype,
                float("nan"),
                ("class", "y", "x"),
                score_codec(),
            )
        self._ours = zarr.open_group(store, path=OURS, mode="r+")
        records = self._ours.get("records")
        if records is None:
            records = create_records(self._ours, plan.grid.blocks, len(plan.class_names))
        assert isinstance(records, zarr.Array)
        self.records = records
        self._changed = open_changed(self._ours)
        self.chunks_written = 0
        """Chunks of labels and scores written so far; one written twice counts twice."""
        self._lock = threading.Lock()

    def _open(
        self,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: str,
        fill_value: float,
        axes: tuple[str, ...],
        codec: BytesBytesCodec,
    ) -> ZarrArray:
        found = self.group.get(name)
        if found is None:
            return self.group.create_array(
                name,
                shape=shape,
                chunks=chunks,
                dtype=dtype,
                fill_value=fill_value,
                compressors=codec,
                dimension_names=axes,
                config=_CONFIG,
            )
        assert isinstance(found, zarr.Array)
        opened: ZarrArray = found.with_config(_CONFIG)
        return opened

    def write(
        self,
        record: Record,
        box: Box,
        labels: NDArray[np.generic],
        scores: NDArray[np.floating] | None,
        unread: Unread | None = None,
        less: tuple[int, int, int] | None = None,
    ) -> None:
        """Write a block's chunks, each once, and then its record.

        Args:
            record: The block's figures.
            box: Its pixels.
            labels: ``(y, x)``.
            scores: ``(class, y, x)``, where the plan stores them.
            unread: What of its image could not be decoded.
            less: Height and width of the tiles that it was run in, and how many at once, where
                memory did not suffice for those of the plan.
        """
        if self.scores is not None and scores is not None:
            self._put(self.scores, box, scores)
        self._put(self.levels[0], box, labels)
        for level in range(1, self.block_levels + 1):
            labels = halve(labels)
            self._put(self.levels[level], box_at(box, level), labels)
        if unread is not None:
            write_unread(self._ours, record.block, unread)
        with self._lock:
            if self._changed is None and less is not None:
                self._changed = begun_changed(self._ours, self.plan.grid.blocks)
        if self._changed is not None:
            write_changed(self._changed, record.block, less)
        write_record(self.records, record)

    def unread(self, blocks: Collection[int] | None = None) -> dict[int, Unread]:
        """Return what could not be decoded of the image, by block: of some blocks, or of all."""
        return read_unread(self._ours, blocks)

    def changed(self) -> list[dict[str, Any]]:
        """Return what blocks were run with where memory ran out; see ``changed_blocks``."""
        return changed_blocks(open_changed(self._ours))

    def _put(self, array: ZarrArray, box: Box, values: NDArray[np.generic]) -> None:
        array[(..., *box.slices)] = values
        with self._lock:
            self.chunks_written += prod(n.stop - n.start for n in _chunks_over(array, box))

    def done(self, blocks: Collection[int] | None = None, *, decoded: bool = False) -> Records:
        """Return the records of the blocks whose chunks are all present.

        Args:
            blocks: Those to look at; ``None`` for all.
            decoded: Whether each chunk has to decode as well, which a power cut may have kept.
        """
        present, recorded = self._present(), self._recorded()
        if blocks is not None:
            asked = np.zeros_like(recorded)
            asked[np.fromiter(blocks, np.int64)] = True
            recorded &= asked
        found = Records(self.plan.grid.blocks, len(self.plan.class_names))
        for record in read_records(self.records, np.flatnonzero(recorded)):
            if self._complete(record.block, present) and (
                not decoded or self._decodes(record.block)
            ):
                found.add(record)
        return found

    @property
    def begun(self) -> bool:
        """Whether a record of any block is there."""
        return bool(self._recorded().any())

    def _recorded(self) -> NDArray[np.bool_]:
        """Say of each block whether its record is there."""
        return present_chunks(self.store, self.records)[:, 0]

    def _present(self) -> dict[str, NDArray[np.bool_]]:
        """Say which chunks are there of each array that blocks are written to."""
        written = (array for array, _ in self._parts(0))
        return {array.path: present_chunks(self.store, array) for array in written}

    def _complete(self, block: int, present: dict[str, NDArray[np.bool_]]) -> bool:
        return all(
            present[array.path][_chunks_over(array, part)].all()
            for array, part in self._parts(block)
        )

    def _decodes(self, block: int) -> bool:
        for array, part in self._parts(block):
            try:
                for leading in product(*map(range, array.shape[:-2])):  # one class at a time
                    index: Any = (*leading, *part.slices)
                    array[index]
            except RequestError:  # tells nothing of the chunk
                raise
            except Exception:  # stores and codecs each raise their own
                return False
        return True

    def _parts(self, block: int) -> list[tuple[ZarrArray, Box]]:
        """Return where a block's pixels lie in each array that it is written to."""
        box = self.plan.grid.block_box(block)
        levels = self.levels[: self.block_levels + 1]
        parts = [(array, box_at(box, level)) for level, array in enumerate(levels)]
        return parts if self.scores is None else [*parts, (self.scores, box)]

    @property
    def finished(self) -> bool:
        """Whether the mask was completed, and the levels made last still have every chunk."""
        return bool(self._provenance().get("complete")) and self._has_last_levels()

    def _has_last_levels(self) -> bool:
        made_last = self.levels[self.block_levels + 1 :]
        return all(present_chunks(self.store, array).all() for array in made_last)

    def _has_metadata(self) -> bool:
        arrays = [*self.levels, *([] if self.scores is None else [self.scores]), self.records]
        keys = [f"{array.path}/zarr.json" for array in arrays]
        return all(sync(self.store.exists(key)) for key in [f"{OURS}/zarr.json", *keys])

    def finish(self) -> None:
        """Build the levels that no block could, and mark the mask as complete.

        Of a mask that was complete before, only what is told of its blocks is brought up to date.

        Raises:
            OutputError: A record or chunk is not there, be it that it went missing meanwhile.
        """
        self._check_blocks()
        if not self.finished:
            for level in range(self.block_levels + 1, len(self.levels)):
                self.chunks_written += build_level(self.levels[level - 1], self.levels[level])
            # What went missing while the levels were built may be missing from them as well.
            self._check_blocks()
            if not self._has_last_levels() or not self._has_metadata():
                raise OutputError(f"{self.place}: files that were written are gone; run again")
        told = {"unread": all_places(self.unread().values()), "changed": self.changed()}
        before = self._provenance()
        facts = {name: each for name, each in before.items() if name not in told}
        facts |= {name: each for name, each in told.items() if each}
        facts["complete"] = True
        if facts != before:
            self._keep(facts)

    def _check_blocks(self) -> None:
        """Raise an error unless the record and every chunk of every block are there."""
        present, recorded = self._present(), self._recorded()
        gone = [
            block
            for block in range(self.plan.grid.blocks)
            if not (recorded[block] and self._complete(block, present))
        ]
        if gone:
            raise OutputError(
                f"{self.place}: {len(gone)} blocks that were written are gone, block {gone[0]} "
                "first; run again"
            )

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What came of computing parts of the mask again; ``None`` where they were not."""
        found = self._provenance().get("certificate")
        return found if isinstance(found, dict) else None

    @property
    def certified(self) -> bool:
        """Whether that was tried."""
        return "certificate" in self._provenance()

    def certify(self, certificate: dict[str, Any] | None) -> None:
        """Keep a certificate; ``None`` says that there can be none."""
        self._keep({**self._provenance(), "certificate": certificate})

    def _keep(self, facts: dict[str, Any]) -> None:
        self.group.attrs.update({OURS: facts})
        stored = zarr.open_group(self.store, mode="r+").attrs.asdict()
        if json.dumps(stored, sort_keys=True) != json.dumps(dict(self.group.attrs), sort_keys=True):
            raise OutputError(f"{self.place} does not keep its attributes; run again")

    def _provenance(self) -> dict[str, Any]:
        found = self.group.attrs.get(OURS, {})
        assert isinstance(found, dict)
        return found


def _chunks_over(array: ZarrArray, box: Box) -> tuple[slice, ...]:
    """Return the numbers of an array's chunks over ``(y, x)``, along each axis."""
    spans = (
        slice(side.start // size, -(-side.stop // size))
        for side, size in zip(box, array.chunks[-2:], strict=True)
    )
    return (*(slice(0, length) for length in array.cdata_shape[:-2]), *spans)
