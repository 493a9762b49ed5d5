"""The whole way on real flights, step by step.

Each step is a method of `Story` that does its work and writes its figures into `Story.figures`. What would make
the run a failure (an event lost or counted twice, predictions that differ) is collected in ``figures["failures"]``;
the run goes on to the report, and the command ends with exit code 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import millstream as ms
from millstream.clock import Clock, SystemClock
from millstream.learn import outputs
from millstream.learn.metrics import Accuracy, Precision, Recall, RocAuc
from millstream.scale import Scaling, measure
from millstream.stream import Ending, JobReport

from . import events, plan, targets
from .home import claim
from .report import Evidence, write_html, write_json

__all__ = ["PARTITIONS", "Story"]

SOURCES = ("plans", "departures", "weather")
PARTITIONS = 3
SPLIT = datetime(2013, 10, 1, 4, tzinfo=UTC)  # midnight of 1 October in New York
MODEL = "flight-delay"
PREDICTIONS = "predictions"
REPEATS = 3  # fits at every width; the speedup is one of medians

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
        clock: Clock | None = None,
    ) -> None:
        self.home = home
        self.workers = workers
        self.seed = seed
        self.figures: dict[str, Any] = {"workers": workers, "seed": seed, "failures": [], "seconds": {}}
        self._progress = progress
        self._step = step
        self._clock = clock or SystemClock()

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
            sent = partial(self._progress_from, f"events into {name}", done, total)
            topic.append(table, key=events.KEYS[name], progress=sent)
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
        history = {name: self._stream(ms.read_topic(log[name]), name) for name in SOURCES}
        features = self.home / "features"
        self._account("history", ms.run(plan.features(**history).to(features), job="training-table"))
        rows = ms.read_parquet(features).to_table()
        self.figures["feature_rows"] = rows.num_rows
        arrivals = ms.read_topic(log["arrivals"]).to_table().select([targets.KEY, "arr_delay"])
        labelled = rows.join(arrivals, targets.KEY, join_type="left outer").sort_by(targets.KEY)
        limit = plan.LATE_AFTER / timedelta(minutes=1)
        return labelled.append_column("late", pc.cast(pc.greater(labelled["arr_delay"], limit), pa.int64()))

    def _account(self, run: str, report: JobReport) -> None:
        """Every event in is used, late or filtered, and every one that was sent came in."""
        if report.ending is Ending.STOPPED:  # Ctrl-C stops a job at a barrier; here it stops the story
            raise KeyboardInterrupt
        for name, counts in report.sources.items():
            sent = self.figures["events_by_topic"][name]
            if counts.rows_in != sent:
                self._fail(f"{run}: {counts.rows_in} of {sent} events of {name} came in")
        self.figures["late"] = report.late
        self.figures[f"events_{run}"] = {
            name: {
                "in": counts.rows_in,
                "used": counts.used,
                "late": counts.late,
                "filtered": counts.filtered,
            }
            for name, counts in report.sources.items()
        }

    def split(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        """January to September with a known outcome, and every flight from October on."""
        before = pc.less(table["at"], pa.scalar(SPLIT, table.schema.field("at").type))
        known = pc.is_valid(table["late"])
        return table.filter(pc.and_(before, known)), table.filter(pc.invert(before))

    # -- train ---------------------------------------------------------------------------------------------------

    def train(self, training: pa.Table, test: pa.Table) -> tuple[Any, Evidence]:
        """Fit on all workers and on one, compare the bits, measure the speedup, evaluate on the last quarter."""
        runs = count(1)
        fitted: dict[int, Any] = {}
        rows = self._model_rows(training, plan.NUMBERS)
        plain_numbers = tuple(name for name in plan.NUMBERS if name not in plan.STREAMED)
        plain_rows = self._model_rows(training, plain_numbers)
        widths = sorted({1, self.workers})

        def fit(workers: int) -> None:
            fitted[workers] = plan.delay_model(engine=ms.Threads(workers)).fit(rows)
            self._progress("training", next(runs), len(widths) * REPEATS)

        plain = plan.delay_model(plain_numbers, ms.Threads(self.workers)).fit(plain_rows)
        scaling = measure(fit, workers=widths, repeat=REPEATS)
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
            "auc": RocAuc().update(y, score).result,
            "auc_without_stream_features": RocAuc().update(y, score_plain).result,
            "precision": Precision().update(y, label).result,
            "recall": Recall().update(y, label).result,
            "accuracy": Accuracy().update(y, label).result,
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
        rows = test.select([targets.KEY, *plan.CATEGORIES, *plan.NUMBERS])
        reference = self._reference(model, rows)
        answers = {
            "batch": targets.batch(version, rows, self.home, self._progress),
            "database": targets.database(version, rows, self.home, self._progress),
            "stream": self._stream_answers(registry, log, rows),
            "server": targets.server(version, rows, self._progress),
            "edge": targets.edge(version, rows, self.home, self._progress),
        }
        in_sql = targets.database_sql(version, self.home)
        self.figures["parity"] = {
            name: self._parity(name, reference, other) for name, other in answers.items()
        }
        self.figures["parity_database_as_sql"] = self._parity("database, as SQL", reference, in_sql)
        self.figures["parity_pairwise"] = {
            names: parity.largest_absolute for names, parity in targets.pairwise(answers).items()
        }

    def _reference(self, model: Any, rows: pa.Table) -> targets.Answers:
        predicted = outputs(model, self._model_rows(rows, plan.NUMBERS))
        return targets.Answers.of(rows[targets.KEY], predicted["label"], predicted["probability"][:, 1])

    def _parity(self, name: str, reference: targets.Answers, other: targets.Answers) -> dict[str, Any]:
        parity = reference.compare(other)
        if not parity.holds:
            self._fail(f"{name} differs from the estimator: {parity}")
        return {
            "rows": parity.rows,
            "largest_absolute_difference": parity.largest_absolute,
            "label_flips": parity.label_flips,
        }

    def _stream_answers(self, registry: ms.Registry, log: ms.Log, rows: pa.Table) -> targets.Answers:
        """The live deployment: topics through the broker, the same feature plan, the model, a topic.

        The features that the live stream computed travel with its predictions, and must equal the training table's:
        promise 1.
        """
        live = {name: self._stream(log[name], name, bounded=True) for name in SOURCES}
        last_quarter = plan.features(**live).filter(_from_split)
        production = registry.follow(f"{MODEL}@production")
        scored = ms.StreamJob.plan(production, last_quarter)
        sink = log.create_topic(PREDICTIONS, partitions=PARTITIONS, schema=scored.schema)
        job = ms.StreamJob(production, source=last_quarter, sink=sink)
        report = job.run(checkpoint=self.home / "state")
        self._account("live", report)
        published = ms.read_topic(log[PREDICTIONS]).to_table().sort_by(targets.KEY)
        self.figures["events_out"] = published.num_rows
        if len(pc.unique(published[targets.KEY])) != published.num_rows:
            self._fail("a flight was predicted twice in the stream")
        if published.num_rows != rows.num_rows:
            self._fail(
                f"the stream predicted {published.num_rows} flights, the training table has {rows.num_rows}"
            )
        self.figures["live_rows_equal_training_rows"] = same = _same_rows(
            rows.sort_by(targets.KEY), published
        )
        if not same:
            self._fail("the live features differ from those of the training table")
        return targets.Answers.of(published[targets.KEY], published["label"], published["probability"])

    # -- shared --------------------------------------------------------------------------------------------------

    def _stream(self, source: Any, name: str, bounded: bool | None = None) -> ms.Stream:
        return ms.as_stream(source, event_time="at", delay=events.DELAY, name=name, bounded=bounded)

    def _model_rows(self, table: pa.Table, numbers: tuple[str, ...]) -> ms.Dataset:
        """The columns the model reads, and the label where the table has one."""
        features = [*plan.CATEGORIES, *numbers]
        target = "late" if "late" in table.column_names else None
        columns = features + ([target] if target else [])
        return ms.from_arrow(table.select(columns), features=features, target=target)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self._step(name)
        start = self._clock.monotonic()
        yield
        self.figures["seconds"][name] = self._clock.monotonic() - start

    def _progress_from(self, what: str, before: int, total: int, done: int) -> None:
        self._progress(what, before + done, total)

    def _fail(self, what: str) -> None:
        self.figures["failures"].append(what)


def _from_split(batch: pa.RecordBatch) -> pa.Array:
    """Rows of the last quarter."""
    return pc.greater_equal(batch["at"], pa.scalar(SPLIT, batch.schema.field("at").type))


def _positive(model: Any, rows: ms.Dataset) -> NDArray[np.float64]:
    """(rows,) float64: the probability that a flight is late."""
    return np.asarray(model.predict_proba(rows)[:, 1])


def _same_rows(expected: pa.Table, found: pa.Table) -> bool:
    """Promise 1: every value equal, float means within 1e-9 relative."""
    if expected.num_rows != found.num_rows:
        return False
    for name in expected.column_names:
        one, other = expected[name].combine_chunks(), found[name].combine_chunks()
        if not pa.types.is_floating(one.type):
            if not one.equals(other):
                return False
        elif not np.allclose(
            one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False), 1e-9, 0, True
        ):
            return False
    return True
