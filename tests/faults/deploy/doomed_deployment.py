"""A live stream deployment in a process of its own that kills itself when told to.

    python doomed_deployment.py HOME [MOMENT COUNT MILLISECONDS]

At the COUNT-th MOMENT a SIGKILL follows after MILLISECONDS (0: there and then), and in any case after `LAST_HOUR`
seconds. Without a moment it runs until SIGTERM and prints how many rows came in and went out since its first start.
"""

import json
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

import millstream as ms
from millstream.cli.quickstart import events, plan
from millstream.stream import Moment

SOURCES = ("plans", "departures", "weather")
LAST_HOUR = 2.0


def live_features(log: ms.Log) -> ms.Stream:
    return plan.features(
        **{name: ms.as_stream(log[name], event_time="at", delay=events.DELAY, name=name) for name in SOURCES}
    )


class Killer:
    """A monitor that ends its own process, without a word, at a given moment."""

    def __init__(self, moment: str, count: int, milliseconds: float) -> None:
        self._moment, self._left, self._seconds = moment, count, milliseconds / 1000
        self._after(LAST_HOUR)

    def __call__(self, moment: Moment, number: int) -> None:
        self._left -= moment == self._moment
        if self._left == 0:
            self._left = -1
            if not self._seconds:
                os.kill(os.getpid(), signal.SIGKILL)
            self._after(self._seconds)

    @staticmethod
    def _after(seconds: float) -> None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()


def main(home: str, *death: str) -> None:
    log = ms.Log(Path(home) / "events")
    job = ms.StreamJob(
        ms.Registry(Path(home) / "models").follow("delay@production"),
        source=live_features(log),
        sink=log["predictions"],
    )
    report = job.run(
        checkpoint=Path(home) / "state",
        every=timedelta(milliseconds=1),
        max_rows=500,
        monitor=Killer(death[0], int(death[1]), float(death[2])) if death else None,
    )
    print(json.dumps({"in": report.rows_in, "late": report.late, "out": sum(report.rows_out.values())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
