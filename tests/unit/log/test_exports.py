"""The public names of the log are listed once, and each is there."""

import millstream.log as log


def test_every_name_listed_is_there_and_documented():
    for name in log.__all__:
        assert getattr(log, name).__doc__


def test_a_name_that_is_not_listed_is_an_attribute_error():
    assert not hasattr(log, "nothing")
