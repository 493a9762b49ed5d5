"""A fit that can be taken up again.

One file, replaced as a whole after a step (written beside, synced, renamed), so that whenever the process is killed
the last step that was kept is there. It is a NumPy ``.npz`` archive read without pickle; the archive's own CRC-32
covers every entry::

    progress     JSON text   format, identity of the fit, step, done, history, and the plain values of the state
    state/NAME   array       the arrays of the state

A state can be kept if it is a mapping of names to arrays and plain values (int, float, bool, str, None).
"""

from __future__ import annotations

import dataclasses
import glob
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from millstream.clock import Clock, SystemClock
from millstream.data import durable_file
from millstream.errors import InputError, Refused, TrainingCheckpointError
from millstream.parallel.algorithm import Meta

__all__ = ["Checkpoint", "CheckpointFile", "Progress"]

FORMAT = 1


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
        self, checkpoint: Checkpoint, algorithm: object, meta: Meta, seed: int, clock: Clock | None = None
    ) -> None:
        self.path = Path(checkpoint.path)
        self._every = checkpoint.every
        self._identity = _identity(algorithm, meta, seed)
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
            with np.load(self.path, allow_pickle=False) as archive:
                record = json.loads(str(archive["progress"]))
                arrays = {
                    name.removeprefix("state/"): archive[name] for name in archive.files if name != "progress"
                }
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise TrainingCheckpointError(
                f"{self.path} is not a checkpoint that can be read ({error}); remove it, or choose another path"
            ) from error
        if (record["format"], record["identity"]) != (FORMAT, self._identity):
            raise Refused(
                f"{self.path} is the checkpoint of another fit: it holds {record['identity']}, this is "
                f"{self._identity}; choose another file, or remove it"
            )
        history = tuple(record["history"])
        return Progress(record["step"], {**arrays, **record["plain"]}, record["done"], history)

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


def _identity(algorithm: object, meta: Meta, seed: int) -> dict[str, Any]:
    known = dataclasses.is_dataclass(algorithm)
    return {
        "algorithm": repr(algorithm)
        if known
        else f"{type(algorithm).__module__}.{type(algorithm).__qualname__}",
        "columns": [f"{field.name}: {field.type} ({field.role.value})" for field in meta.schema.fields],
        "n_rows": meta.n_rows,
        "n_parts": meta.n_parts,
        "seed": seed,
    }
