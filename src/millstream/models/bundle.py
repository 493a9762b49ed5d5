"""A bundle: a model on disk, immutable and named by its content.

::

    <digest>/
      manifest.json     {"files": {name: sha256}, "format": 1}, canonical JSON; its sha256 is the digest
      model.onnx        the graph, feature transforms inside
      signature.json    names, types, shapes, categories, classes
      golden.arrow      struct columns `inputs` (rows in raw types) and `outputs` (the estimator's answers)
      reference.json    the training distribution, column by column
      lineage.json      data, offsets, code, parameters, metrics

A bundle is written beside its place, flushed, and renamed into it, so a reader sees all of it or nothing.
Every read checks the hash of what it read; nothing in it is executed by reading, and there is no pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from millstream.data import durable_folder
from millstream.errors import BundleCorrupt, ModelError, ParityError
from millstream.models.signature import Signature

__all__ = ["GOLDEN_ROWS", "Bundle", "Golden"]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN_ROWS = 64
_FORMAT = 1


@dataclass(frozen=True)
class Golden:
    """Rows whose answers are known: `inputs` in raw types, `outputs` by the estimator itself."""

    inputs: pa.RecordBatch
    outputs: pa.RecordBatch

    def __post_init__(self) -> None:
        if self.inputs.num_rows != self.outputs.num_rows or not self.inputs.num_rows:
            raise ParityError(
                f"{self.inputs.num_rows} golden rows have {self.outputs.num_rows} answers; expected at least "
                "one row and one answer a row; register the model with data"
            )

    def to_ipc(self) -> bytes:
        """The bytes of ``golden.arrow``."""
        table = pa.RecordBatch.from_arrays(
            [self.inputs.to_struct_array(), self.outputs.to_struct_array()], names=["inputs", "outputs"]
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_batch(table)
        return bytes(sink.getvalue())

    @classmethod
    def from_ipc(cls, data: bytes) -> Golden:
        batch = pa.ipc.open_file(pa.py_buffer(data)).get_batch(0)
        return cls(*(pa.RecordBatch.from_struct_array(batch.column(name)) for name in ("inputs", "outputs")))


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; `open` checks it, `write` makes it."""

    path: Path
    digest: str

    @classmethod
    def write(
        cls,
        root: str | os.PathLike[str],
        *,
        model: bytes,
        signature: Signature,
        golden: Golden,
        reference: Mapping[str, Any],
        lineage: Mapping[str, Any],
    ) -> Bundle:
        """Write a bundle under `root`; equal content lands in the same folder and is written once.

        Raises ModelError where it can't be written, because the disk is full, say.
        """
        files = {
            MODEL: model,
            "signature.json": signature.to_json(),
            "golden.arrow": golden.to_ipc(),
            "reference.json": _json(reference),
            "lineage.json": _json(lineage),
        }
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        files[MANIFEST] = json.dumps(
            {"files": hashes, "format": _FORMAT}, sort_keys=True, separators=(",", ":")
        ).encode()
        digest = hashlib.sha256(files[MANIFEST]).hexdigest()
        place = Path(root) / digest
        if not place.exists():
            _write_folder(place, files)
        return cls.open(place, digest)

    @classmethod
    def open(cls, path: str | os.PathLike[str], digest: str | None = None) -> Bundle:
        """The bundle at `path`, every file checked; `digest` defaults to the folder's name.

        Raises BundleCorrupt, which names the first file that is missing or altered.
        """
        bundle = cls(Path(path), digest or Path(path).name)
        for name in bundle._hashes:
            bundle.read(name)
        return bundle

    def read(self, name: str) -> bytes:
        """The bytes of a file of the bundle, whose hash has been checked."""
        expected = self._hashes[name]
        data = self._bytes(name)
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise self._corrupt(name, f"sha256 {found[:12]}…, expected {expected[:12]}…")
        return data

    @cached_property
    def signature(self) -> Signature:
        return Signature.from_json(self.read("signature.json"))

    @cached_property
    def golden(self) -> Golden:
        return Golden.from_ipc(self.read("golden.arrow"))

    @cached_property
    def reference(self) -> dict[str, Any]:
        return dict(json.loads(self.read("reference.json")))

    @cached_property
    def lineage(self) -> dict[str, Any]:
        return dict(json.loads(self.read("lineage.json")))

    @cached_property
    def _hashes(self) -> dict[str, str]:
        data = self._bytes(MANIFEST)
        found = hashlib.sha256(data).hexdigest()
        if found != self.digest:
            raise self._corrupt(MANIFEST, f"sha256 {found[:12]}…, expected {self.digest[:12]}…")
        return dict(json.loads(data)["files"])

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise self._corrupt(name, error.strerror or str(error)) from error

    def _corrupt(self, name: str, found: str) -> BundleCorrupt:
        return BundleCorrupt(
            f"{name} of bundle {self.path} is not what was registered: {found}; "
            "restore the folder from a copy, or register the model again"
        )


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _write_folder(place: Path, files: Mapping[str, bytes]) -> None:
    try:
        with durable_folder(place) as folder:
            for name, data in files.items():
                (folder / name).write_bytes(data)
    except OSError as error:
        if not place.exists():  # another writer of the same content may have come first
            raise ModelError(
                f"bundle {place} can't be written: {error.strerror or error}; nothing of it is there: make room on its "
                "disk, or make the folder writable, and register the model again"
            ) from error
