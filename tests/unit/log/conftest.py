"""One broker for the tests of a module."""

import pytest

from millstream.log import Log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    with Log(tmp_path_factory.mktemp("log") / "events") as opened:
        yield opened
