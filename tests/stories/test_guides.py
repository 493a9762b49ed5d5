"""The code of every guide runs as it stands, top to bottom."""

import re
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guide").glob("*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_its_code_runs(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.M | re.S)
    assert blocks
    names: dict = {"__name__": guide.stem}
    for block in blocks:
        exec(compile(block, str(guide), "exec"), names)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_its_pictures_are_there(guide: Path) -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", guide.read_text()):
        assert (guide.parent / picture).is_file()
