"""The limits of this machine: plausible, measured once, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.parallel import Limits, limits as room, measure_limits


def test_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure_limits(tmp_path)
    assert 1e8 < first.sgemm < 1e13
    assert 1e8 < first.bandwidth < 1e13
    assert "GFLOP/s" in str(first)
    monkeypatch.setattr(room, "_best_of", lambda call: pytest.fail("measured again"))
    assert measure_limits(tmp_path) == first
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"sgemm": 1}', '{"sgemm": "x", "bandwidth": 1}', '{"sgemm": 0, "bandwidth": 1}']
)
def test_a_file_that_makes_no_sense_is_replaced(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_best_of", lambda call: 1.0)
    limits = measure_limits(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert measure_limits(tmp_path) == limits
    monkeypatch.setattr(room, "_best_of", lambda call: pytest.fail("measured again"))
    assert measure_limits(tmp_path) == limits


def test_without_a_place_to_keep_them_they_are_measured_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_best_of", lambda call: 1.0)
    (tmp_path / "taken").write_text("a file where the directory should be")
    assert isinstance(measure_limits(tmp_path / "taken"), Limits)


def test_the_place_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_best_of", lambda call: 1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measure_limits()
    assert len(list((tmp_path / "millstream").iterdir())) == 1
