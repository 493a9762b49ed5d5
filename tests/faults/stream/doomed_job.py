"""A job in a process of its own that kills itself when told to.

    python doomed_job.py LOG OUT CHECKPOINT [MOMENT COUNT MILLISECONDS]

At the COUNT-th MOMENT a SIGKILL follows after MILLISECONDS (0: there and then). Without a moment the job runs to its
end and prints its report.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import millstream.stream as ms
from millstream.log import Log

US = timedelta(microseconds=1)


def outputs(log: Log, directory: Path) -> list[ms.Output]:
    left = ms.as_stream(log["left"], event_time="at", delay=60 * US, bounded=True)
    right = ms.as_stream(log["right"], event_time="at", delay=60 * US, bounded=True)
    looked = left.lookback(right, on="key", over=200 * US, n=ms.count(), total=ms.sum("x"))
    windows = right.key_by("key").window(ms.Tumbling(100 * US)).aggregate(n=ms.count(), total=ms.sum("x"))
    return [looked.to(log["looked"]), right.late.to(log["late"]), windows.to(directory)]


class Killer:
    """A monitor that ends its own process, without a word, at a given moment."""

    def __init__(self, moment: str, count: int, milliseconds: float) -> None:
        self._moment = moment
        self._left = count
        self._after = milliseconds / 1000

    def __call__(self, moment: ms.Moment, number: int) -> None:
        self._left -= moment == self._moment
        if self._left == 0:
            self._left = -1
            if self._after:
                threading.Timer(self._after, self._kill).start()
            else:
                self._kill()

    @staticmethod
    def _kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    log_at, out, checkpoint, *death = sys.argv[1:]
    monitor = Killer(death[0], int(death[1]), float(death[2])) if death else None
    log = Log(log_at)
    report = ms.run(
        *outputs(log, Path(out)),
        job="doomed",
        checkpoint=checkpoint,
        every=timedelta(milliseconds=1),
        max_rows=100,
        monitor=monitor,
    )
    counts = {name: asdict(c) | {"filtered": c.filtered} for name, c in report.sources.items()}
    print(json.dumps({"sources": counts, "out": dict(report.rows_out), "resumed_from": report.resumed_from}))


if __name__ == "__main__":
    main()
