"""A fit that can be taken up again.

One file, replaced as a whole after every step (written beside, synced, renamed), so that whenever the
process is killed the last complete step is there. It is a NumPy ``.npz`` archive read without pickle; the
archive's own CRC-32 covers every entry::

    progress     JSON text   format, identity of the fit, step, done, history, and the plain values of the state
    state/NAME   array       the arrays of the state

A state can be kept if it is a mapping of names to arrays and plain values (int, float, bool, str, None).
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from millstream.errors import Refused, TrainingError
from millstream.parallel.algorithm import Meta

__all__ = ["Checkpoint", "Progress"]

FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """How far a fit is: `step` is the next to do; `state` holds the parameters once `done`."""

    step: int
    state: Any
    done: bool
    history: tuple[Mapping[str, float], ...]


class Checkpoint:
    """The file at `path`, for one algorithm on one dataset under one seed."""

    def __init__(self, path: Path, algorithm: object, meta: Meta, seed: int) -> None:
        self.path = path
        self._identity = _identity(algorithm, meta, seed)

    def save(self, progress: Progress) -> None:
        """Replace the file. If that fails the former one is still there."""
        arrays, plain = self._split(progress.state)
        record = {
            "format": FORMAT,
            "identity": self._identity,
            "step": progress.step,
            "done": progress.done,
            "history": [dict(measures) for measures in progress.history],
            "plain": plain,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.unfinished")
        try:
            with beside.open("wb") as file:
                np.savez(file, progress=np.array(json.dumps(record)), **arrays)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def load(self) -> Progress | None:
        """What the file holds, or None if there is none.

        Raises `Refused` if it belongs to another fit, `TrainingError` if it can't be read.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                record = json.loads(str(archive["progress"]))
                arrays = {
                    name.removeprefix("state/"): archive[name] for name in archive.files if name != "progress"
                }
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"{self.path} is not a checkpoint that can be read ({error}); remove it"
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
            if isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
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
