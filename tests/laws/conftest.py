"""Engines that need a cluster are left out where laws run over every engine that is found: starting one takes 10 s."""

from __future__ import annotations

import pytest

ELSEWHERE = {"Ray": "needs a cluster; its laws are in tests/laws/test_ray.py, over one cluster"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        engine = params.get("engine")
        if isinstance(engine, type) and engine.__name__ in ELSEWHERE:
            item.add_marker(pytest.mark.skip(reason=ELSEWHERE[engine.__name__]))
