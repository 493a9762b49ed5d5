import pytest

from millstream.errors import InputError
from millstream.scale import Scaling, serial_fraction


def test_forecast_meets_the_measurement():
    scaling = Scaling({1: 10.0, 2: 5.5, 4: 3.25})
    assert scaling.forecast(4) == pytest.approx(scaling.speedup(4))


def test_superlinear_speedup_has_no_serial_part():
    assert serial_fraction(2.5, 2) == 0.0


def test_work_that_does_not_scale_is_serial():
    assert serial_fraction(1.0, 4) == 1.0
    assert Scaling({1: 1.0, 4: 1.0}).forecast(64) == pytest.approx(1.0)


@pytest.mark.parametrize("seconds", [{2: 1.0}, {1: 0.0, 2: 1.0}])
def test_a_measurement_without_baseline_or_time_is_refused(seconds):
    with pytest.raises(InputError):
        Scaling(seconds)


def test_one_worker_gives_no_forecast():
    with pytest.raises(InputError, match="two or more"):
        Scaling({1: 1.0}).forecast(8)
