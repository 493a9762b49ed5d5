"""Aggregates by key and tumbling window: each row to one pane (window, key), each pane out once, when it is final.

A window [s, e) is final when the watermark has reached e. Panes leave in the order (window_end, key), at time e: what a
window says is known from its end on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.stream import plan
from millstream.stream.event_time import MAX_TIME, from_microseconds
from millstream.stream.frame import Batch, Frame, Watermark
from millstream.stream.operators.accumulators import accumulator
from millstream.stream.operators.operator import Operator, Snapshot
from millstream.stream.slots import KeySlots, distinct

__all__ = ["TumblingOperator"]

Ints = npt.NDArray[np.int64]


class TumblingOperator(Operator):
    def __init__(self, node: plan.TumblingAggregate) -> None:
        # configuration
        rows = node.input.schema
        self._keys = node.keys
        self._kinds = [rows.field(key).type for key in node.keys]
        self._size = node.size
        self._time_type = node.time_type
        self._schema = node.schema
        # rebuilt on restart
        self._slots = KeySlots(self._kinds, nulls=True)
        self._pane_of: dict[tuple[int, int], int] = {}
        # checkpointed
        self._emitted = 0
        self._window: Ints = np.zeros(0, np.int64)
        self._slot: Ints = np.zeros(0, np.int64)
        self._accumulators = [accumulator(name, a, rows) for name, a in node.aggregates]

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        if len(batch):
            keys = [batch.rows.column(key) for key in self._keys]
            slots = self._slots.add(keys) if keys else np.zeros(len(batch), np.int64)
            panes = self._panes(batch.time // self._size, slots)
            for each in self._accumulators:
                each.add(panes, batch.rows)
        return ()

    def _panes(self, window: Ints, slot: Ints) -> Ints:
        """The pane (n,) of each row; new ones are made."""
        width = len(self._slots) if self._keys else 1
        of_batch, rank = distinct(window)  # the windows' own numbers may lie too far apart to be packed
        packed, inverse = distinct(rank.astype(np.int64) * width + slot)
        windows, slots = of_batch[packed // width], packed % width
        before = len(self._window)
        known = self._pane_of
        pairs = zip(windows.tolist(), slots.tolist(), strict=True)
        numbers = np.array([known.setdefault(pair, len(known)) for pair in pairs], np.int64)
        new = numbers >= before
        if new.any():
            self._window = np.concatenate([self._window, windows[new]])
            self._slot = np.concatenate([self._slot, slots[new]])
            for each in self._accumulators:
                each.grow(len(self._window))
        panes: Ints = numbers[inverse]
        return panes

    def watermark(self, port: int, watermark: Watermark) -> Iterable[Frame]:
        ended = watermark.time >= MAX_TIME  # a window may end after it
        final = ((self._window + 1) * self._size <= watermark.time) | ended
        if watermark.time < MAX_TIME:
            self.concluded = watermark.time
        elif final.any():
            self.concluded = max(self.concluded, int(self._window.max() + 1) * self._size)
        if final.any():
            yield self._result(np.flatnonzero(final))
            self._keep(np.flatnonzero(~final))
        yield watermark

    def _result(self, panes: Ints) -> Batch:
        start = self._window[panes] * self._size
        end = start + self._size
        keys = self._slots.values(self._slot[panes]) if self._keys else []
        columns = [
            *keys,
            from_microseconds(start, self._time_type),
            from_microseconds(end, self._time_type),
            *(each.result(panes) for each in self._accumulators),
        ]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        order = pc.sort_indices(rows, [(name, "ascending") for name in ("window_end", *self._keys)])
        index = order.to_numpy().astype(np.int64)
        n = len(index)
        offset = np.arange(self._emitted, self._emitted + n, dtype=np.int64)
        self._emitted += n
        return Batch(rows.take(order), end[index], np.zeros(n, np.int32), offset)

    def _keep(self, panes: Ints) -> None:
        """Keep these panes; number keys afresh, so that keys that have gone take no room."""
        live, slot_of_pane = np.unique(self._slot[panes], return_inverse=True)
        if self._keys and 4 * len(live) < len(self._slots):
            keys = self._slots.values(live)
            self._slots = KeySlots(self._kinds, nulls=True)
            self._slot = self._slots.add(keys)[slot_of_pane] if len(live) else live
        else:
            self._slot = self._slot[panes]
        self._window = self._window[panes]
        for each in self._accumulators:
            each.keep(panes)
        pairs = zip(self._window.tolist(), self._slot.tolist(), strict=True)
        self._pane_of = {pair: pane for pane, pair in enumerate(pairs)}

    def snapshot(self) -> Snapshot:
        columns: list[tuple[str, object]] = [("window", self._window)]
        if self._keys:
            values = self._slots.values(self._slot)
            columns += [(f"key {key}", column) for key, column in zip(self._keys, values, strict=True)]
        for each in self._accumulators:
            columns += [(f"{each.name} {part}", column.copy()) for part, column in each.state.items()]
        panes = pa.Table.from_arrays([pa.array(c) for _, c in columns], names=[name for name, _ in columns])
        return {"panes": panes, "emitted": pa.table({"rows": pa.array([self._emitted], pa.int64())})}

    def restore(self, snapshot: Snapshot) -> None:
        self._emitted = snapshot["emitted"].column("rows")[0].as_py()
        panes = snapshot["panes"].combine_chunks()
        self._window = np.array(panes.column("window").to_numpy())
        keys = [pa.concat_arrays(panes.column(f"key {key}").chunks or []) for key in self._keys if len(panes)]
        self._slot = self._slots.add(keys) if keys else np.zeros(len(panes), np.int64)
        for each in self._accumulators:
            each.state = {
                part: np.array(panes.column(f"{each.name} {part}").to_numpy()) for part in each.state
            }
        pairs = zip(self._window.tolist(), self._slot.tolist(), strict=True)
        self._pane_of = {pair: pane for pane, pair in enumerate(pairs)}
