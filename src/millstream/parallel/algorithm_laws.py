"""The laws of `Algorithm`, each as something to try.

A law takes a `Case` and yields what it saw go wrong: where, and the difference. It raises `NotAsked` where it says
nothing about the algorithm at hand, and `Raised` where the algorithm fails only because it was disturbed.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from millstream.data import Dataset, Part, from_arrow
from millstream.errors import Refused
from millstream.parallel.algorithm import Algorithm, Context, Done, Meta, Step
from millstream.parallel.difference import Difference, first_difference, leaves
from millstream.parallel.engine import Engine
from millstream.parallel.fault import Fault
from millstream.parallel.fit import fit
from millstream.parallel.inline import Inline
from millstream.parallel.local import rng_of
from millstream.parallel.minibatch import Minibatch
from millstream.parallel.operation import SUM
from millstream.parallel.threads import Threads
from millstream.parallel.tree import PairwiseTree

__all__ = ["LAWS", "Case", "NotAsked", "Raised"]

Seen = Iterator[tuple[str, Difference]]

_PARTS = 7  # rows in fewer parts are cut again, so that there is something to combine and to lose
_TRIPLES = 8  # of neighbouring statistics, combined in two orders


class NotAsked(Exception):
    """The law says nothing about this algorithm; the reason is in the text."""


class Raised(Exception):
    """The algorithm raised something in a run that a lawful one gets through."""

    def __init__(self, where: str, told: str) -> None:
        super().__init__(where, told)
        self.where, self.told = where, told


class Case:
    """One algorithm on one dataset."""

    def __init__(
        self,
        algorithm: Algorithm,
        views: Mapping[str, Dataset],
        steps: int,
        seed: int,
        rtol: float | None,
        engines: Sequence[Engine],
    ) -> None:
        self.algorithm, self.steps, self.seed, self.engines = algorithm, steps, seed, tuple(engines)
        as_it_lies = getattr(algorithm, "single_pass", False)
        rows = {name: v if as_it_lies or v.row_major else v.persist() for name, v in views.items()}
        self.views = {name: _recut(view, _sizes(view)) for name, view in rows.items()}
        narrow = any(view.dtype == np.dtype("f4") for view in self.views.values())
        self.rtol = float(np.sqrt(np.finfo("f4").eps)) if rtol is None and narrow else rtol

    @cached_property
    def expected(self) -> Any:
        """The state after an undisturbed run on one worker; what the algorithm raises there, it raises anywhere."""
        return self.run(Inline(workers=1))

    def fresh(self) -> Algorithm:
        """A copy, so that what one run leaves behind in the algorithm is not seen by the next."""
        return copy.deepcopy(self.algorithm)

    def run(
        self,
        engine: Engine,
        views: Mapping[str, Dataset] | None = None,
        algorithm: Algorithm | None = None,
        checkpoint: Path | None = None,
        steps: int | None = None,
    ) -> Any:
        """The state after at most `steps` steps."""
        return fit(
            algorithm or self.fresh(),
            views or self.views,
            engine=engine,
            steps=steps or self.steps,
            checkpoint=checkpoint,
            seed=self.seed,
        ).params

    def disturbed(self, where: str, engine: Engine, **other: Any) -> Any:
        """The state after a run that should end as `expected`."""
        try:
            return self.run(engine, **other)
        except Exception as error:
            raise Raised(where, f"raised {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _HandStep:
    """A step done by hand; `keeps` is what the step before left with each part."""

    step: int
    plan: Step
    parts: Sequence[Part]
    algorithm: Algorithm
    seed: int
    keeps: Sequence[dict[str, Any]]

    def call(self, index: int, *, for_good: bool = False) -> tuple[dict[str, Any], Any, bool]:
        """`local` of one part: the statistic, the parameters afterwards, and whether random numbers were drawn.

        Parameters and `keep` are copies, unless the call is for good: then its `keep` lasts.
        """
        params = copy.deepcopy(self.plan.params)
        keep = self.keeps[index] if for_good else copy.deepcopy(self.keeps[index])
        ctx = Context(self.step, rng_of(self.seed, (self.step << 32) + index), keep=keep)
        before = repr(ctx.rng.bit_generator.state)
        statistic = dict(self.algorithm.local(params, self.parts[index], ctx))
        return statistic, params, repr(ctx.rng.bit_generator.state) != before


def _by_hand(case: Case, views: Mapping[str, Dataset]) -> Iterator[_HandStep]:
    """The first two steps, as `fit` plans them."""
    algorithm = case.fresh()
    train = views["train"]
    meta = Meta(train.n_features, train.n_rows, len(train.parts), train.dtype, train.schema)
    state = algorithm.init(meta, rng_of(case.seed, 2**64 - 1))
    keeps: dict[str, list[dict[str, Any]]] = {name: [{} for _ in view.parts] for name, view in views.items()}
    for number in range(min(2, case.steps)):
        plan = getattr(algorithm, "plan", Step)(state)
        parts: Sequence[Part] = views[plan.view].parts
        if plan.rows is not None:
            batch = Minibatch.of(plan.rows, views[plan.view].n_rows, case.seed, number)
            parts = [batch.within(part) for part in parts]
        step = _HandStep(number, plan, parts, algorithm, case.seed, keeps[plan.view])
        yield step
        statistics = [step.call(index, for_good=True)[0] for index in range(len(parts))]
        state = algorithm.update(state, _combined(algorithm, statistics))
        if isinstance(state, Done):
            return


def local_is_pure(case: Case) -> Seen:
    """Called twice it gives the same bits, and changes neither its parameters nor the rows nor what it returned."""
    for step in _by_hand(case, case.views):
        returned: list[dict[str, Any]] = []
        copies: list[dict[str, Any]] = []
        for index in range(len(step.parts)):
            where = f"part {index}, step {step.step}"
            try:
                statistic, params, _ = step.call(index)
            except ValueError as error:
                if "read-only" not in str(error):
                    raise
                yield f"{where}, wrote to the rows", Difference("part.blocks()", None, None, str(error))
                return
            returned.append(statistic)
            copies.append(copy.deepcopy(statistic))
            difference = first_difference(step.plan.params, params, "params")
            if difference is not None:
                yield f"{where}, wrote to its parameters", difference
        for index in reversed(range(len(step.parts))):
            where = f"part {index}, step {step.step}"
            difference = first_difference(copies[index], step.call(index)[0], "statistic")
            if difference is not None:
                yield f"{where}, called twice", difference
        for index, (before, after) in enumerate(zip(copies, returned, strict=True)):
            difference = first_difference(before, after, "statistic")
            if difference is not None:
                yield f"part {index}, step {step.step}, changed after it was returned", difference


def combine_is_associative(case: Case) -> Seen:
    """``(a b) c`` is ``a (b c)`` up to rounding, and the operands stay as they are."""
    step = next(_by_hand(case, case.views))
    statistics = [step.call(index)[0] for index in range(len(step.parts))]
    operations = getattr(step.algorithm, "combine", {})
    triples = list(zip(statistics, statistics[1:], statistics[2:], strict=False))[:_TRIPLES]
    for first, triple in enumerate(triples):
        for field in triple[0]:
            a, b, c = (np.asarray(statistic[field]) for statistic in triple)
            before = [copy.deepcopy(operand) for operand in (a, b, c)]
            operation = operations.get(field, SUM)
            left, right = operation(operation(a, b), c), operation(a, operation(b, c))
            name = f"statistic[{field!r}]"
            difference = first_difference(left, right, name, exact=False, rtol=case.rtol)
            if difference is not None:
                yield f"parts {first} to {first + 2}, (a b) c against a (b c)", difference
            difference = first_difference(before, [a, b, c], name)
            if difference is not None:
                yield f"parts {first} to {first + 2}, {operation} wrote to an operand", difference


def any_partitioning(case: Case) -> Seen:
    """Rows cut into other parts give the same state, up to rounding."""
    for step in _by_hand(case, case.views):
        if step.plan.rows is not None:
            raise NotAsked("not asked: which rows are in a mini-batch depends on the parts")
        if any(step.call(index)[2] for index in range(len(step.parts))):
            raise NotAsked("not asked: local draws random numbers, which differ from part to part")
    whole = {name: _recut(view, [view.n_rows]) for name, view in case.views.items()}
    expected = case.disturbed("on one part", Inline(workers=1), views=whole)
    for cut in (_uneven, _many):
        views = {name: _recut(view, cut(view.n_rows)) for name, view in case.views.items()}
        sizes = [part.n_rows for part in views["train"].parts]
        shown = f"{sizes[:4]}"[:-1] + (", ...]" if len(sizes) > 4 else "]")
        where = f"on parts of {shown} rows against one of {sum(sizes)}"
        got = case.disturbed(where, Inline(workers=1), views=views)
        counts = 1, len(sizes)
        difference = _beside_counts(expected, got, counts, case.rtol)
        if difference is not None:
            yield where + _first_field(case, whole, views), difference


def any_width(case: Case) -> Seen:
    """The same bytes on every engine at every width."""
    engines = [Inline(1, workers=2), Inline(2, workers=5), Threads(1), Threads(2), Threads(3)]
    for engine in (*engines, *case.engines):
        where = f"on {engine!r} against one worker"
        got = case.disturbed(where, engine)
        difference = first_difference(case.expected, got, "state")
        if difference is not None:
            yield where, difference


def keep_is_a_cache(case: Case) -> Seen:
    """What `ctx.keep` holds may be gone at any step, to the same bytes."""
    for seed, share in ((0, 0.5), (1, 0.5), (2, 1.0)):
        where = f"with ctx.keep emptied before {share:.0%} of the calls of local"
        forgetful = _Forgetful(case.fresh(), seed, share)
        got = case.disturbed(where, Inline(workers=1), algorithm=forgetful)
        difference = first_difference(case.expected, got, "state")
        if difference is not None:
            yield where, difference


def resume(case: Case) -> Seen:
    """Stopped after any step and taken up from a checkpoint by another process, it ends at the same bytes."""
    for stop in sorted({1, case.steps // 2, case.steps - 1} - {0}):
        where = f"stopped after step {stop - 1} and taken up by a new copy of the algorithm"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fit.npz"
            try:
                case.run(Inline(workers=1), checkpoint=path, steps=stop)
            except Refused as error:
                raise NotAsked(f"not asked: {error}") from error
            got = case.disturbed(where, Inline(workers=1), checkpoint=path)
        difference = first_difference(case.expected, got, "state")
        if difference is not None:
            yield where, difference


def killed_worker(case: Case) -> Seen:
    """A worker that dies or hangs costs time and not a bit."""
    engines: list[Inline | Threads] = [
        Inline(step, [Fault(step, 1, "die"), Fault(1 - step, 2, "hang")]) for step in (0, 1)
    ]
    for engine in (*engines, Threads(3, faults=[Fault(0, 0), Fault(1, 2, after=1)])):
        struck = ", ".join(
            f"{fault.kind} (worker {fault.worker}, step {fault.step})" for fault in engine.faults
        )
        where = f"on {engine!r} with injected faults: {struck}"
        got = case.disturbed(where, engine)
        difference = first_difference(case.expected, got, "state")
        if difference is not None:
            yield where, difference


LAWS: dict[str, Callable[[Case], Seen]] = {
    "local is pure": local_is_pure,
    "combine is associative": combine_is_associative,
    "any partitioning": any_partitioning,
    "any width": any_width,
    "keep is a cache": keep_is_a_cache,
    "resume": resume,
    "killed worker": killed_worker,
}


class _Forgetful:
    """The algorithm, with `ctx.keep` emptied before some calls of `local`."""

    def __init__(self, algorithm: Algorithm, seed: int, share: float) -> None:
        self._algorithm, self._seed, self._share = algorithm, seed, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._algorithm, name)

    def init(self, meta: Meta, rng: np.random.Generator) -> Any:
        return self._algorithm.init(meta, rng)

    def local(self, params: Any, part: Part, ctx: Context) -> Mapping[str, Any]:
        if np.random.default_rng([self._seed, ctx.step, part.index]).random() < self._share:
            ctx.keep.clear()
        return self._algorithm.local(params, part, ctx)

    def update(self, state: Any, statistic: Mapping[str, Any]) -> Any:
        return self._algorithm.update(state, statistic)


def _combined(algorithm: Algorithm, statistics: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    tree = PairwiseTree(len(statistics), getattr(algorithm, "combine", {}))
    for index, statistic in enumerate(statistics):
        tree.insert(index, {name: np.asarray(value) for name, value in statistic.items()})
    return tree.result()


def _beside_counts(expected: Any, got: Any, counts: tuple[int, int], rtol: float | None) -> Difference | None:
    """The first difference that is not the number of parts itself, which a state may hold."""
    left, right = dict(leaves(expected, "state")), dict(leaves(got, "state"))
    for field in [field for field in left if field in right]:
        pair = left[field], right[field]
        if all(isinstance(v, int | np.integer) for v in pair) and pair == counts:
            del left[field], right[field]
    for field in [*left, *(field for field in right if field not in left)]:
        if field not in left or field not in right:
            return Difference(field, None, None, "only one of the two states has it")
        difference = first_difference(left[field], right[field], field, exact=False, rtol=rtol)
        if difference is not None:
            return difference
    return None


def _first_field(case: Case, whole: Mapping[str, Dataset], views: Mapping[str, Dataset]) -> str:
    """Which field of the first step's statistic shows the difference already."""
    first, second = (
        _combined(step.algorithm, [step.call(index)[0] for index in range(len(step.parts))])
        for step in (next(_by_hand(case, whole)), next(_by_hand(case, views)))
    )
    for field in first:
        if field in second and first[field].shape == second[field].shape:
            difference = first_difference(
                first[field], second[field], f"statistic[{field!r}]", exact=False, rtol=case.rtol
            )
            if difference is not None:
                return f" (as does {difference.field} of step 0)"
    return ""


def _recut(view: Dataset, sizes: Sequence[int]) -> Dataset:
    parts = from_arrow(view.to_table(), part_rows=sizes).parts
    return Dataset(view.schema, [part.with_schema(view.schema) for part in parts])


def _sizes(view: Dataset) -> list[int]:
    sizes = [part.n_rows for part in view.parts]
    return sizes if len(sizes) >= _PARTS else _even(view.n_rows, _PARTS)


def _even(n_rows: int, n_parts: int) -> list[int]:
    return [after - before for before, after in pairwise(n_rows * i // n_parts for i in range(n_parts + 1))]


def _uneven(n_rows: int) -> list[int]:
    """Five parts, two of them without rows."""
    return [0, n_rows // 7, 0, n_rows // 3, n_rows - n_rows // 7 - n_rows // 3]


def _many(n_rows: int) -> list[int]:
    return _even(n_rows, min(n_rows, 23))
