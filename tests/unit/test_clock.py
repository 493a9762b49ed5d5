import threading
from datetime import timedelta

import pytest

from millstream.clock import Clock, ManualClock, SystemClock

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_clocks_keep_the_protocol(clock):
    assert isinstance(clock, Clock)


def test_a_sleeper_wakes_when_its_time_has_come_and_not_before():
    clock, woken = ManualClock(), threading.Event()
    sleeper = threading.Thread(target=lambda: (clock.sleep(2 * SECOND), woken.set()), daemon=True)
    sleeper.start()
    clock.advance(SECOND)
    assert not woken.wait(0.05)
    clock.advance(SECOND)
    # The sleeper may have begun after the first advance: its two seconds then end one second later.
    if not woken.wait(0.2):
        clock.advance(SECOND)
    assert woken.wait(5)


def test_a_manual_clock_never_goes_back():
    with pytest.raises(ValueError, match="can't go back"):
        ManualClock().advance(-SECOND)


def test_system_time_is_microseconds_since_1970():
    assert 1_700_000_000_000_000 < SystemClock().now() < 4_000_000_000_000_000
