import errno
import os
import pathlib

import pytest

from millstream.errors import BundleCorrupt, ModelError
from millstream.models import Bundle, Scorer

FILES = ["manifest.json", "model.onnx", "signature.json", "golden.arrow", "reference.json", "lineage.json"]


def test_a_bundle_is_named_by_its_content(write):
    assert write().path == write().path
    assert write().path != write(note="other").path
    assert write().path.name == write().digest


def test_a_bundle_gives_back_what_was_written(bundle, rows, answers):
    read = Bundle.open(bundle.path)
    assert read.golden.inputs.equals(rows)
    assert read.golden.outputs.equals(answers)
    assert read.lineage == {"note": ""}
    assert read.signature.classes == (0, 1)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_named(bundle, name):
    data = bytearray((bundle.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.path / name).write_bytes(data)
    with pytest.raises(BundleCorrupt, match=name):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    with pytest.raises(BundleCorrupt, match=name):
        Bundle.open(bundle.path)


def test_a_file_altered_after_opening_is_never_scored(bundle):
    opened = Bundle.open(bundle.path)
    (bundle.path / "model.onnx").write_bytes(b"something else")
    with pytest.raises(BundleCorrupt, match=r"model\.onnx"):
        Scorer(opened)


def test_a_bundle_exchanged_for_another_is_refused(write):
    first, second = write(), write(note="other")
    for name in FILES:
        (first.path / name).write_bytes((second.path / name).read_bytes())
    with pytest.raises(BundleCorrupt, match="manifest"):
        Bundle.open(first.path)


def test_a_writer_that_fails_leaves_nothing(registry, write, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ModelError, match="No space"):
            write()
    assert list(pathlib.Path(registry.path / "bundles").iterdir()) == []
    assert write().golden


def test_a_full_disk_is_named_and_leaves_nothing(registry, write, monkeypatch):
    def fill(path, data):
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fill)
    with pytest.raises(ModelError, match=r"bundle .* can't be written: No space left.*make room.*register"):
        write()
    assert list((registry.path / "bundles").iterdir()) == []
    assert registry.models() == []
