"""Objects on their way to another process: a small stream of bytes, and shared memory for what is large.

Pickle protocol 5 (PEP 574) leaves the buffers of arrays and Arrow tables out of the stream. Those of `LARGE` bytes or
more are written once into a shared segment, each once however many objects refer to it, and mapped by the receiver.
So neither rows nor parameters nor statistics are ever copied through a pipe. Three kinds of object travel by
reference alone: a mapped file as a descriptor, a `Setting` that the receiver has already as its number, and classes
and functions as module and name, with the module's file for a receiver that doesn't find it by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import pickle
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from millstream.data import MappedFile
from millstream.errors import Refused
from millstream.parallel.arena import Arena, ArenaView, Written
from millstream.parallel.local import Setting
from millstream.parallel.shared_memory import mapped, segment

__all__ = ["Origin", "Parcel", "Pickled", "pack", "unpack", "unpickled"]

LARGE = 16 << 10

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Origin:
    """Where the module of a class or function came from. name: None for a script."""

    name: str | None
    file: str | None


@dataclass(frozen=True)
class Parcel:
    """What `pack` made. The descriptors are the segment, if there are spans and it is new to the receiver, and then
    those of mapped files. Those in `borrowed` are not the parcel's to close. written: where in an arena.
    """

    stream: bytes
    spans: Spans = ()
    descriptors: tuple[int, ...] = ()
    borrowed: frozenset[int] = frozenset()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    written: Written | None = None

    @property
    def about(self) -> tuple[Any, ...]:
        """What the receiver must know beside the stream and the descriptors."""
        where = self.written
        place = None if where is None else (where.number, where.descriptor is not None, where.dropped)
        return self.spans, dict(self.origins), place

    def close(self) -> None:
        """Close the descriptors that are the parcel's own; once it is sent."""
        for handle in self.descriptors:
            if handle not in self.borrowed:
                os.close(handle)


@dataclass(frozen=True)
class Pickled:
    """The stream and what it leaves out.

    buffers: the large ones, each once. order: which of them the stream refers to, one after the other. files: the
    descriptors of mapped files.
    """

    stream: bytes
    buffers: Sequence[memoryview]
    order: Sequence[int]
    files: tuple[int, ...]
    origins: Mapping[str, Origin]

    @classmethod
    def of(cls, content: Any, settings: Mapping[int, int] | None = None) -> Pickled:
        """Raises `Refused` for what can't be sent, naming it; settings: as in `pack`."""
        stream = io.BytesIO()
        pickler = _Pickler(stream, {} if settings is None else settings)
        try:
            pickler.dump(content)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise Refused(
                f"what the workers need can't be sent to another process: {error}. Keep open files, locks and "
                "connections out of algorithm and function; write a dataset that has them with write_parquet() and "
                "read that; or use Threads()"
            ) from error
        place = {key: at for at, key in enumerate(pickler.large)}
        order = [place[key] for key in pickler.order]
        return cls(
            stream.getvalue(), list(pickler.large.values()), order, tuple(pickler.files), pickler.origins
        )


def pack(content: Any, settings: Mapping[int, int] | None = None, arena: Arena | None = None) -> Parcel:
    """Make a parcel; settings: numbers of the settings the receiver has, by id; arena: to write large buffers into.

    Raises `Refused` for what can't be sent, naming it.
    """
    pickled = Pickled.of(content, settings)
    files, buffers = pickled.files, pickled.buffers
    if not buffers:
        return Parcel(pickled.stream, (), files, frozenset(files), pickled.origins)
    written = None if arena is None else arena.write(buffers)
    if written is None:
        handle, places = segment(buffers)
        own: tuple[int, ...] = (handle,)
    else:
        own, places = () if written.descriptor is None else (written.descriptor,), list(written.spans)
        files = (*own, *files)
    spans = [places[at] for at in pickled.order]
    descriptors = files if written is not None else (*own, *files)
    return Parcel(pickled.stream, spans, descriptors, frozenset(files), pickled.origins, written)


def unpack(
    stream: bytes | memoryview,
    about: tuple[Any, ...],
    descriptors: Sequence[int],
    settings: Mapping[int, Setting] | None = None,
    view: ArenaView | None = None,
) -> Any:
    """The content. Its large buffers lie in the segment until nothing refers to them.

    view: of the arena that `pack` wrote into.
    """
    spans, origins, place = about
    files = list(descriptors)
    if place is not None and view is not None:
        number, new, dropped = place
        memory = view.view(number, files.pop(0) if new else None, dropped)
    else:
        memory = mapped(files.pop(0)) if spans else memoryview(b"")
    buffers = [memory[offset : offset + size] for offset, size in spans]
    return unpickled(stream, buffers, files, origins, settings)


def unpickled(
    stream: bytes | memoryview,
    buffers: Iterable[Any],
    descriptors: Sequence[int],
    origins: Mapping[str, Origin],
    settings: Mapping[int, Setting] | None = None,
) -> Any:
    """The content of a `Pickled`; buffers: in the order in which the stream refers to them."""
    return _Unpickler(stream, buffers, descriptors, origins, settings or {}).load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, settings: Mapping[int, int]) -> None:
        super().__init__(stream, protocol=5, buffer_callback=self._buffer)
        self._settings = settings
        self.files: list[int] = []
        self.large: dict[tuple[int, int], memoryview] = {}  # by address and size
        self.order: list[tuple[int, int]] = []
        self.origins: dict[str, Origin] = {}

    def persistent_id(self, obj: Any) -> tuple[str, int] | None:
        if isinstance(obj, MappedFile):
            if obj.descriptor not in self.files:
                self.files.append(obj.descriptor)
            return "file", self.files.index(obj.descriptor)
        if isinstance(obj, Setting) and id(obj) in self._settings:
            return "setting", self._settings[id(obj)]
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType):
            self._note(obj)
        return NotImplemented

    def _buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """True to keep it in the stream."""
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        key = (_address(raw), raw.nbytes)
        self.large[key] = raw
        self.order.append(key)
        return False

    def _note(self, obj: type | FunctionType) -> None:
        name = obj.__module__
        if "<lambda>" in obj.__qualname__ or "<locals>" in obj.__qualname__:
            raise Refused(
                f"{obj.__qualname__} of {name} can't be sent to another process, because it has no name there: define "
                "it at the top of a module, or use Threads()"
            )
        module = sys.modules.get(name)
        if module is None or name in self.origins:
            return
        file = getattr(module, "__file__", None)
        if name != "__main__":
            self.origins[name] = Origin(name, file)
            return
        if file is None or not os.path.exists(file):
            raise Refused(
                f"{obj.__qualname__} is defined in an interactive session, where another process can't import it: "
                "write it into a file and import it from there, or use Threads()"
            )
        spec = getattr(module, "__spec__", None)
        self.origins[name] = Origin(None if spec is None else spec.name, os.path.abspath(file))


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        stream: bytes | memoryview,
        buffers: Iterable[Any],
        files: Sequence[int],
        origins: Mapping[str, Origin],
        settings: Mapping[int, Setting],
    ) -> None:
        super().__init__(io.BytesIO(stream), buffers=iter(buffers))
        self._files = [MappedFile(descriptor) for descriptor in files]
        self._origins = origins
        self._settings = settings

    def persistent_load(self, reference: tuple[str, int]) -> Any:
        kind, number = reference
        return self._files[number] if kind == "file" else self._settings[number]

    def find_class(self, module: str, name: str) -> Any:
        origin = self._origins.get(module)
        if origin is not None and module == "__main__":
            _load_script(origin)
        elif module == SCRIPT and SCRIPT not in sys.modules:
            module = "__main__"  # an answer of a worker, for which our script has another name
        elif origin is not None:
            _load(origin)
        return super().find_class(module, name)


SCRIPT = "__mp_main__"  # the name under which a script is loaded again, as in multiprocessing
_loaded_scripts: set[Origin] = set()


def _load_script(origin: Origin) -> None:
    """Have the driver's script as ``__main__``, without what stands under ``if __name__ == "__main__"``."""
    if origin in _loaded_scripts:
        return
    script = ModuleType(SCRIPT)
    if origin.name is None:
        assert origin.file is not None
        script.__dict__.update(runpy.run_path(origin.file, run_name=SCRIPT))
    else:
        script.__dict__.update(runpy.run_module(origin.name, run_name=SCRIPT))
    sys.modules[SCRIPT] = sys.modules["__main__"] = script
    _loaded_scripts.add(origin)


def _load(origin: Origin) -> None:
    """Import a module by name, or else from the file that it has in the driver."""
    assert origin.name is not None
    if origin.name in sys.modules:
        return
    try:
        importlib.import_module(origin.name)
    except ModuleNotFoundError:
        spec = (
            None if origin.file is None else importlib.util.spec_from_file_location(origin.name, origin.file)
        )
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        sys.modules[origin.name] = module
        spec.loader.exec_module(module)


def _address(buffer: memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])
