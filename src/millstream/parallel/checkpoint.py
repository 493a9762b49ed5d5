"""A fit that can be taken up again.

One file, replaced as a whole after a step (written beside, synced, renamed), so that whenever the process is killed
the last step that was kept is there. It is a NumPy ``.npz`` archive read without pickle; the archive's own CRC-32
covers every entry::

    progress     JSON text   format, identity of the fit, step, done, history, names of the arrays, and the plain
                             values of the state
    state/NAME   array       the arrays of the state

A state can be kept if it is a mapping of names to arrays and plain values (int, float, bool, str, None).

The identity of a fit is what must be the same for it to be taken up: the class of the algorithm and its
hyperparameters (the fields of a dataclass, else what its instance holds when the fit begins: plain values, digests of
arrays, and of anything else the class); columns, rows and parts; the seed; and for every view a digest of the first and
last `SAMPLED_ROWS` rows of up to `SAMPLED_PARTS` parts, spread from the first to the last. So other data of the same
shape is noticed where it differs in one of those rows, as shifted, scaled, shuffled or fresh data does; a change in
rows between them is not.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from millstream.clock import Clock, SystemClock
from millstream.data import Dataset, Part, durable_file
from millstream.errors import InputError, Refused, TrainingCheckpointError
from millstream.parallel.algorithm import Meta

__all__ = ["Checkpoint", "CheckpointFile", "Progress"]

FORMAT = 2
SAMPLED_PARTS = 8
SAMPLED_ROWS = 16


@dataclass(frozen=True)
class Progress:
    """How far a fit is: `step` is the next to do; `state` holds the parameters once `done`."""

    step: int
    state: Any
    done: bool
    history: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit is kept, and how often.

    path: the file. every: after so many steps, or once so much time has passed since it was kept last; besides when the
    fit ends, however it ends, short of being killed.

    The file is read by ``numpy.load(path, allow_pickle=False)``.
    """

    path: str | Path
    every: int | timedelta = 1

    def __post_init__(self) -> None:
        fits = self.every > timedelta(0) if isinstance(self.every, timedelta) else self.every >= 1
        if not fits:
            raise InputError(
                f"Checkpoint(every={self.every!r}); expected a number of steps or a timedelta, above 0"
            )


class CheckpointFile:
    """The file of one algorithm on one dataset under one seed."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        algorithm: object,
        meta: Meta,
        seed: int,
        views: Mapping[str, Dataset],
        clock: Clock | None = None,
    ) -> None:
        self.path = Path(checkpoint.path)
        self._every = checkpoint.every
        self._identity = _identity(algorithm, meta, seed, views)
        self._clock = clock or SystemClock()
        self._kept_at = self._clock.monotonic()
        self._not_kept: Progress | None = None
        self._steps_not_kept = 0

    def after_step(self, progress: Progress) -> None:
        """Keep the step if it is time to."""
        self._not_kept = progress
        self._steps_not_kept += 1
        passed = timedelta(seconds=self._clock.monotonic() - self._kept_at)
        due = (
            passed >= self._every
            if isinstance(self._every, timedelta)
            else self._steps_not_kept >= self._every
        )
        if due:
            self.at_end()

    def at_end(self) -> None:
        """Keep the last complete step, if it is not kept yet."""
        progress, self._not_kept = self._not_kept, None
        if progress is not None:
            self.save(progress)
            self._steps_not_kept, self._kept_at = 0, self._clock.monotonic()

    def save(self, progress: Progress) -> None:
        """Replace the file.

        Raises `TrainingCheckpointError` if it can't be written; the former one is still there.
        """
        arrays, plain = self._split(progress.state)
        record = {
            "format": FORMAT,
            "identity": self._identity,
            "step": progress.step,
            "done": progress.done,
            "history": [dict(measures) for measures in progress.history],
            "plain": plain,
            "arrays": sorted(arrays),
        }
        entries = {"progress": np.array(json.dumps(record)), **arrays}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with durable_file(self.path) as file:
                np.savez(file, **entries)
        except OSError as error:
            raise TrainingCheckpointError(
                f"step {progress.step} can't be kept in {self.path} ({error}); what was there before is there still: "
                "make room and fit again to go on from it, or choose another path"
            ) from error

    def load(self) -> Progress | None:
        """What the file holds, or None if there is none.

        Raises `Refused` if it belongs to another fit, `TrainingCheckpointError` if it can't be read.
        """
        for left in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.unfinished"):
            left.unlink(missing_ok=True)  # of a fit that was killed while writing
        if not self.path.exists():
            return None
        try:
            identity, progress = self._read()
        except Exception as error:  # whatever a parser says of bytes that are none of ours
            raise TrainingCheckpointError(
                f"{self.path} is not a checkpoint that can be read ({type(error).__name__}: {error}); remove it to "
                "begin anew, or choose another path"
            ) from error
        differing = _differing(identity, self._identity)
        if differing:
            raise Refused(
                f"{self.path} is the checkpoint of another fit: {'; '.join(differing)}; fit what it was made with to "
                "go on from it, or choose another path, or remove it to begin anew"
            )
        return progress

    def _read(self) -> tuple[dict[str, str], Progress]:
        with np.load(self.path, allow_pickle=False) as archive:
            record = json.loads(str(archive["progress"]))
            arrays = {
                name.removeprefix("state/"): archive[name] for name in archive.files if name != "progress"
            }
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}, expected {FORMAT}")
        if (
            sorted(f"state/{name}" for name in arrays) != record["arrays"]
        ):  # a list the archive has no checksum over
            raise ValueError(f"its arrays are {sorted(arrays)}, expected {record['arrays']}")
        state = {**arrays, **record["plain"]}
        history = tuple(dict(measures) for measures in record["history"])
        return dict(record["identity"]), Progress(int(record["step"]), state, bool(record["done"]), history)

    def _split(self, state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if not isinstance(state, Mapping):
            raise Refused(
                f"a state of type {type(state).__name__} can't be kept in {self.path}: make it a mapping"
            )
        arrays: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for name, value in state.items():
            if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
                arrays[f"state/{name}"] = value
            elif value is None or isinstance(value, bool | int | float | str):
                plain[name] = value
            else:
                raise Refused(
                    f"{name!r} of the state is of type {type(value).__name__} and can't be kept in {self.path}: "
                    "keep arrays of numbers or strings, and plain values"
                )
        return arrays, plain


def _identity(algorithm: object, meta: Meta, seed: int, views: Mapping[str, Dataset]) -> dict[str, str]:
    """What must be the same, each under the words an error names it by."""
    kind = type(algorithm)
    return {
        "algorithm": f"{kind.__module__}.{kind.__qualname__}",
        **{f"hyperparameter {name}": _shown(value) for name, value in _held(algorithm)},
        "columns": ", ".join(
            f"{field.name}: {field.type} ({field.role.value})" for field in meta.schema.fields
        ),
        "rows": str(meta.n_rows),
        "parts": str(meta.n_parts),
        "seed": str(seed),
        **{f"data of view {name!r}": _digest_of_view(view) for name, view in sorted(views.items())},
    }


def _differing(found: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    names = [*here, *(name for name in found if name not in here)]
    return [
        f"{name} is {here.get(name, 'not there')} here, in the file {found.get(name, 'not there')}"
        for name in names
        if found.get(name) != here.get(name)
    ]


def _held(owner: object) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass, else the variables of an instance, less what it has only cached."""
    if dataclasses.is_dataclass(owner):
        names = [field.name for field in dataclasses.fields(owner) if hasattr(owner, field.name)]
        yield from ((name, getattr(owner, name)) for name in names)
    else:
        for name, value in sorted(getattr(owner, "__dict__", {}).items()):
            if not isinstance(getattr(type(owner), name, None), cached_property):
                yield name, value


def _shown(value: object) -> str:
    """A text that is equal for equal values in every process, short enough for an error."""
    text = _text(value)
    return text if len(text) <= 100 else f"{text[:60]}... (sha256 {_sha256(text.encode())})"


def _text(value: object) -> str:
    if value is None or isinstance(
        value, bool | int | float | complex | str | bytes | timedelta | np.generic
    ):
        return repr(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"array of {value.dtype}, shape {value.shape}, sha256 {_sha256(value.tobytes())}"
    if isinstance(value, np.ndarray):
        return f"array of {value.dtype}, shape {value.shape}, {_text(value.tolist())}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_text, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(_text, value)))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(name)}: {_text(item)}' for name, item in value.items())}}}"
    named = value if hasattr(value, "__qualname__") else type(value)  # a function or class, else an object
    name = f"{getattr(named, '__module__', '')}.{named.__qualname__}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{name}({', '.join(f'{field}={_text(item)}' for field, item in _held(value))})"
    return name


def _digest_of_view(view: Dataset) -> str:
    """sha256 over sampled rows, and over how many rows every part has."""
    digest = hashlib.sha256(json.dumps([part.n_rows for part in view.parts]).encode())
    last = len(view.parts) - 1
    for index in sorted(
        {round(i * last / (SAMPLED_PARTS - 1)) for i in range(SAMPLED_PARTS)} if last >= 0 else ()
    ):
        for rows in _ends(view.parts[index]):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema) as writer:
                writer.write_batch(rows)
            digest.update(sink.getvalue())
    return f"sha256 {digest.hexdigest()[:16]}"


def _ends(part: Part) -> Iterator[pa.RecordBatch]:
    """The first rows of the first batch and the last of the last, copied out of what lies around them."""
    first = last = None
    for batch in part.batches():
        if batch.num_rows:
            first, last = first or batch, batch
    if first is not None and last is not None:
        for batch, start in ((first, 0), (last, max(0, last.num_rows - SAMPLED_ROWS))):
            rows = np.arange(start, min(start + SAMPLED_ROWS, batch.num_rows))
            yield batch.take(pa.array(rows)).replace_schema_metadata(None)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
