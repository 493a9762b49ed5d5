"""The whole way on real flights, step by step.

Each step is a method of `Story` that does its work and writes its figures into `Story.figures`. What would make
the run a failure (an event lost or counted twice, predictions that differ) is collected in ``figures["failures"]``;
the run goes on to the report, and the command ends with exit code 1.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import millstream as ms
from millstream.learn.metrics import Accuracy, Precision, Recall, RocAuc
from millstream.scale import Scaling, measure

from . import events, plan, targets
from .home import claim
from .report import Evidence, write_html, write_json

__all__ = ["PARTITIONS", "STEPS", "Story"]

STEPS = ("collect", "features", "train", "register", "deploy", "report")
PARTITIONS = 3
SPLIT = datetime(2013, 10, 1, 4, tzinfo=UTC)  # midnight of 1 October in New York
MODEL = "flight-delay"
PREDICTIONS = "predictions"

Progress = Callable[[str, int, int], None]
"""Told (what, done, total) while a step works."""


class Story:
    """One run of the quick start in the folder `home`.

    Args:
        home: everything the run writes goes below this folder; what an earlier run left there is removed.
        workers: threads that train; one worker is measured beside them.
        seed: of the disorder in which events arrive.
        progress: called with (what, done, total) during long work.
        step: called with the name of each step as it begins.
    """

    def __init__(
        self,
        home: Path,
        *,
        workers: int = 2,
        seed: int = 2013,
        progress: Progress = lambda what, done, total: None,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.home = home
        self.workers = workers
        self.seed = seed
        self.figures: dict[str, Any] = {"workers": workers, "seed": seed, "failures": [], "seconds": {}}
        self._progress = progress
        self._step = step

    def run(self) -> dict[str, Any]:
        """All steps; returns the figures that ``report.json`` holds."""
        with ExitStack() as stack:
            stack.enter_context(claim(self.home))
            log = stack.enter_context(ms.Log(self.home / "events"))
            with self._timed("collect"):
                self.collect(log)
            with self._timed("features"):
                table = self.build_features(log)
            with self._timed("train"):
                training, test = self.split(table)
                model, evidence = self.train(training, test)
            with self._timed("register"):
                registry = ms.Registry(self.home / "models")
                self.register(registry, model, training, log)
            with self._timed("deploy"):
                self.deploy(registry, model, test, log)
            with self._timed("report"):
                write_html(self.figures, evidence, self.home / "report.html")
        write_json(self.figures, self.home / "report.json")
        return self.figures

    # -- collect -------------------------------------------------------------------------------------------------

    def collect(self, log: ms.Log) -> None:
        """Replay the year into the log, in the order in which events arrive."""
        rng = np.random.default_rng(self.seed)
        tables = {name: events.arrival_order(rows, rng) for name, rows in events.flight_events().items()}
        total, done = sum(table.num_rows for table in tables.values()), 0
        for name, table in tables.items():
            topic = log.create_topic(name, partitions=PARTITIONS, schema=table.schema)
            topic.append(
                table,
                key=events.KEYS[name],
                progress=lambda n, name=name, done=done: self._progress(
                    f"events into {name}", done + n, total
                ),
            )
            done += table.num_rows
            if sum(topic.end_offsets()) != table.num_rows:
                self._fail(
                    f"topic {name} holds {sum(topic.end_offsets())} events, {table.num_rows} were sent"
                )
        self.figures["events_in"] = done
        self.figures["events_by_topic"] = {name: table.num_rows for name, table in tables.items()}

    # -- features ------------------------------------------------------------------------------------------------

    def build_features(self, log: ms.Log) -> pa.Table:
        """The training table: the feature plan over the history of the topics, joined with what happened."""
        history = {name: ms.read_topic(log[name]) for name in ("plans", "departures", "weather")}
        streams = {name: self._stream(rows, name) for name, rows in history.items()}
        report = ms.run(
            plan.features(**streams).to(self.home / "features"),
            job="training-table",
            monitor=self._watch("feature rows"),
        )
        self._account("history", report)
        rows = pa.concat_tables(
            pq.read_table(file) for file in sorted((self.home / "features").glob("*.parquet"))
        )
        self.figures["feature_rows"] = rows.num_rows
        arrivals = ms.read_topic(log["arrivals"]).to_table().select(["flight_id", "arr_delay"])
        labelled = rows.join(arrivals, "flight_id", join_type="left outer").sort_by("flight_id")
        limit = plan.LATE_AFTER / timedelta(minutes=1)
        return labelled.append_column("late", pc.cast(pc.greater(labelled["arr_delay"], limit), pa.int64()))

    def split(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        """January to September with a known outcome, and every flight from October on."""
        before = pc.less(table["at"], pa.scalar(SPLIT, table.schema.field("at").type))
        known = pc.is_valid(table["late"])
        return table.filter(pc.and_(before, known)), table.filter(pc.invert(before))

    # -- train ---------------------------------------------------------------------------------------------------

    def train(self, training: pa.Table, test: pa.Table) -> tuple[Any, Evidence]:
        """Fit on all workers and on one, compare the bits, measure the speedup, evaluate on the last quarter."""
        self._progress("training", 0, 3)
        fitted: dict[int, Any] = {}
        rows = self._model_rows(training, plan.NUMBERS)

        def fit(workers: int) -> None:
            fitted[workers] = plan.delay_model(engine=ms.Threads(workers)).fit(rows)

        scaling = measure(fit, workers=sorted({1, self.workers}), repeat=1)
        self._progress("training", 2, 3)
        plain_numbers = tuple(name for name in plan.NUMBERS if name not in plan.STREAMED)
        plain = plan.delay_model(plain_numbers, ms.Threads(self.workers)).fit(
            self._model_rows(training, plain_numbers)
        )
        self._progress("training", 3, 3)
        self._report_scaling(scaling, fitted)
        model = fitted[self.workers]
        known = test.filter(pc.is_valid(test["late"]))
        score = _positive(model, self._model_rows(known, plan.NUMBERS))
        score_plain = _positive(plain, self._model_rows(known, plain_numbers))
        late = np.asarray(known["late"]).astype(bool)
        self._evaluate(late, score, score_plain)
        self.figures["training_rows"], self.figures["test_rows"] = training.num_rows, known.num_rows
        return model, Evidence(late, score, score_plain, np.asarray(known["hour"]))

    def _report_scaling(self, scaling: Scaling, fitted: dict[int, Any]) -> None:
        coefficients = {
            workers: model.named_steps["model"].coef_.tobytes() for workers, model in fitted.items()
        }
        same = len(set(coefficients.values())) == 1
        if not same:
            self._fail(f"the coefficients differ between {sorted(fitted)} workers")
        self.figures |= {
            "same_bits": same,
            "training_seconds_by_workers": {str(p): seconds for p, seconds in scaling.seconds.items()},
            "speedup": scaling.speedup(self.workers),
            "efficiency": scaling.efficiency(self.workers),
            "forecast_speedup_8_workers": scaling.forecast(8) if scaling.widest > 1 else 1.0,
        }

    def _evaluate(self, late: NDArray[np.bool_], score: NDArray[Any], score_plain: NDArray[Any]) -> None:
        label = score >= 0.5
        y = late.astype(np.int64)
        self.figures |= {
            "auc": RocAuc().update(y, score).result(),
            "auc_without_stream_features": RocAuc().update(y, score_plain).result(),
            "precision": Precision().update(y, label).result(),
            "recall": Recall().update(y, label).result(),
            "accuracy": Accuracy().update(y, label).result(),
            "late_share": float(late.mean()),
        }

    # -- register ------------------------------------------------------------------------------------------------

    def register(self, registry: ms.Registry, model: Any, training: pa.Table, log: ms.Log) -> None:
        """A version with golden rows, metrics and lineage, promoted to ``production``."""
        lineage = {
            "topics": {name: log[name].end_offsets() for name in self.figures["events_by_topic"]},
            "trained_until": SPLIT.isoformat(),
            "rows": training.num_rows,
        }
        metrics = {name: self.figures[name] for name in ("auc", "precision", "recall", "accuracy")}
        version = registry.register(
            MODEL, model, data=self._model_rows(training, plan.NUMBERS), metrics=metrics, lineage=lineage
        )
        registry.promote(MODEL, version.number, "production", expect=None)
        self.figures["model"] = {"name": MODEL, "version": version.number, "digest": version.digest}

    # -- deploy --------------------------------------------------------------------------------------------------

    def deploy(self, registry: ms.Registry, model: Any, test: pa.Table, log: ms.Log) -> None:
        """Score the last quarter by five deployments of one version, and compare all answers pairwise."""
        version = registry.get(f"{MODEL}@production")
        rows = test.select(["flight_id", *self._feature_names(plan.NUMBERS)])
        reference = targets.Answers.of_estimator(model, rows)
        answers = {
            "batch": targets.batch(version, rows, self.home),
            "database": targets.database(version, rows, self.home),
            "stream": self._stream_answers(registry, log, test),
            "server": targets.server(version, rows, self._progress),
            "edge": targets.edge(version, rows, self.home),
        }
        self.figures["parity"] = {name: reference.compare(other) for name, other in answers.items()}
        self.figures["parity_pairwise"] = targets.pairwise(answers)
        for name, row in self.figures["parity"].items():
            if not row["holds"]:
                self._fail(f"{name} differs from the estimator: {row}")

    def _stream_answers(self, registry: ms.Registry, log: ms.Log, test: pa.Table) -> targets.Answers:
        """The live deployment: topics in, the feature plan, the model, a topic out; restarted never, lost never."""
        live = {name: self._stream(log[name], name) for name in ("plans", "departures", "weather")}
        last_quarter = plan.features(**live).filter(_from_split)
        sink = log.create_topic(PREDICTIONS, partitions=PARTITIONS)
        raise NotImplementedError
