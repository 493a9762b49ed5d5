"""The README's Python runs, block after block, as a newcomer would type it."""

import os
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def snippets() -> list[tuple[int, str]]:
    text = README.read_text()
    return [
        (text.count("\n", 0, match.start(1)), match[1])
        for match in re.finditer(r"```python\n(.*?)```", text, re.S)
    ]


def test_the_readme_has_a_snippet_for_every_room():
    text = README.read_text()
    for room in ("log", "stream", "parallel", "learn", "models", "deploy"):
        assert re.search(rf"### {room}: [^#]*```python", text, re.S), f"no snippet for {room}"


@pytest.mark.timeout(180)
def test_the_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    try:
        for line, code in snippets():
            # Blank lines before the code make tracebacks point into the README.
            exec(compile("\n" * line + code, str(README), "exec"), names)
    finally:
        if "log" in names:
            names["log"].close()
    assert {"scored", "buyers-edge", "shop.db", "models"} <= set(os.listdir(tmp_path))
