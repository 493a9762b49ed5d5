"""The registry: which models and versions there are, what answers under which alias, and what did before.

A folder with ``registry.db`` (see `catalogue`) and ``bundles/<digest>/`` (see `bundle`). Laws:

- a version never changes, and its number is never given again;
- an alias moves only forward in its history: `at` answers "what was production at T" for every T;
- `promote` with `expect` is compare-and-set: of two who read the same alias, one wins and the other is told;
- a model whose Scorer does not answer as the estimator does is refused, and nothing of it is listed.

Several processes may use one registry at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from millstream.clock import Clock, SystemClock, microseconds
from millstream.errors import InputError, PromotionConflict, UnknownModel
from millstream.models.bundle import GOLDEN_ROWS, Bundle
from millstream.models.catalogue import (
    alias_changes,
    deployments,
    open_engine,
    parity_reports,
    versions,
)
from millstream.models.followed import Followed
from millstream.models.names import Reference, alias_name, model_name
from millstream.models.parity import Parity, compare
from millstream.models.scorer import Scorer
from millstream.models.transactional import writing
from millstream.models.version import Version

__all__ = ["AliasChange", "Deployment", "ParityReport", "Registry"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Unset(Enum):
    UNSET = "whatever it was"


@dataclass(frozen=True)
class AliasChange:
    """From `at` on the alias pointed to version `number`; before, to `previous`."""

    number: int
    previous: int | None
    at: datetime


@dataclass(frozen=True)
class ParityReport:
    """Golden rows of version `number`, answered on `target`."""

    number: int
    target: str
    parity: Parity
    at: datetime


@dataclass(frozen=True)
class Deployment:
    """Version `number` went live on `target` at `location`; `measured` holds sizes and seconds, by target."""

    number: int
    target: str
    location: str
    measured: Mapping[str, float]
    at: datetime


class Registry:
    """Models, versions and aliases in the folder `path`, made if it is not there.

    >>> import tempfile, numpy as np
    >>> from millstream.learn import KMeans
    >>> registry = Registry(tempfile.mkdtemp())
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> version = registry.register("zones", KMeans(n_clusters=2, random_state=7).fit(X), data=X)
    >>> registry.promote("zones", version.number)
    >>> registry.get("zones@production").number
    1
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} can't hold a registry: {error.strerror}; expected a folder, or a path for a new one"
            ) from error
        self._clock = clock or SystemClock()
        self._engine = open_engine(self.path / "registry.db")
        self._writing = writing(self._engine)

    def register(
        self,
        name: str,
        estimator: Any,
        data: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, Any] | None = None,
        golden_rows: int = GOLDEN_ROWS,
    ) -> Version:
        """Export a fitted estimator, check it, and list it as the next version of `name`.

        `data` is what it was trained on (Dataset, table or array): golden rows and the training distribution
        come from it. `lineage` takes anything JSON holds: topic offsets, a commit. Raises ParityError if the
        exported graph differs from the estimator's own answers on the golden rows.
        """
        from millstream.models.registration import (
            write_bundle,
        )  # training is not loaded where models only answer

        model_name(name)
        bundle = write_bundle(
            self.path / "bundles",
            estimator,
            data,
            metrics=dict(metrics or {}),
            lineage=dict(lineage or {}),
            golden_rows=golden_rows,
        )
        return self.add(name, bundle, metrics=metrics)

    def add(self, name: str, bundle: Bundle, *, metrics: Mapping[str, float] | None = None) -> Version:
        """List a bundle of this registry's folder as the next version of `name`, if it holds parity."""
        model_name(name)
        if bundle.path.parent != self.path / "bundles":
            raise InputError(f"bundle {bundle.path} lies outside {self.path / 'bundles'}; write it there")
        parity = compare(bundle.golden.outputs, Scorer(bundle).predict(bundle.golden.inputs))
        parity.require(f"the Scorer of {name!r}")
        with self._writing.begin() as connection:
            last = connection.scalar(
                sa.select(sa.func.max(versions.c.number)).where(versions.c.model == name)
            )
            number = (last or 0) + 1
            connection.execute(
                versions.insert().values(
                    model=name,
                    number=number,
                    digest=bundle.digest,
                    at=self._clock.now(),
                    metrics=dict(metrics or {}),
                )
            )
        version = self.get(name, number)
        self.record_parity(version, "scorer", parity)
        return version

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(versions.c.model).distinct().order_by(versions.c.model)))

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(versions).where(versions.c.model == name).order_by(versions.c.number)
            ).all()
        if not rows:
            raise self._unknown(name)
        return [self._version(row) for row in rows]

    def get(self, name: str, number: int | None = None) -> Version:
        """A version: ``get("zones", 3)``, ``get("zones@3")`` or ``get("zones@production")``."""
        if number is None:
            reference = Reference.parse(name)
            if reference.alias is not None:
                return self.get(reference.name, self._current(reference.name, reference.alias))
            name, number = reference.name, reference.number
        with self._engine.connect() as connection:
            row = connection.execute(
                sa.select(versions).where(versions.c.model == name, versions.c.number == number)
            ).one_or_none()
        if row is None:
            raise self._unknown(name, f"version {number}")
        return self._version(row)

    def promote(
        self,
        name: str,
        number: int,
        alias: str = "production",
        *,
        expect: int | _Unset | None = _Unset.UNSET,
    ) -> None:
        """Let `alias` point to version `number` from now on.

        With `expect` (a number, or None for "no version yet") it does so only if the alias points there now,
        and otherwise raises PromotionConflict and changes nothing.
        """
        alias_name(alias)
        self.get(name, number)
        with self._writing.begin() as connection:
            now = connection.scalar(_last(name, alias))
            if expect is not _Unset.UNSET and now != expect:
                raise PromotionConflict(
                    f"{name}@{alias} points to {_which(now)}, expected {_which(expect)}; "
                    "look at what was promoted meanwhile, then promote again"
                )
            connection.execute(
                alias_changes.insert().values(
                    model=name, alias=alias, number=number, previous=now, at=self._clock.now()
                )
            )

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model and the number it points to; UnknownModel if there is no such model."""
        self._require(name)
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(alias_changes.c.alias, alias_changes.c.number)
                .where(alias_changes.c.model == name)
                .order_by(alias_changes.c.id)
            )
            return {row.alias: row.number for row in rows}

    def history(self, name: str, alias: str = "production") -> list[AliasChange]:
        """Every change of an alias, oldest first; UnknownModel if there is no such model."""
        self._require(name)
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(alias_changes.c.number, alias_changes.c.previous, alias_changes.c.at)
                .where(alias_changes.c.model == name, alias_changes.c.alias == alias)
                .order_by(alias_changes.c.id)
            )
            return [AliasChange(row.number, row.previous, _moment(row.at)) for row in rows]

    def at(self, name: str, alias: str, when: datetime) -> Version:
        """The version `alias` pointed to at `when`, an aware datetime."""
        if when.tzinfo is None:
            raise InputError(f"{when!r} has no time zone; pass an aware datetime, datetime.now(UTC) say")
        with self._engine.connect() as connection:
            number = connection.scalar(
                _last(name, alias).where(alias_changes.c.at <= microseconds(when - _EPOCH))
            )
        if number is None:
            raise self._unknown(name, f"alias {alias!r} at {when.isoformat()}")
        return self.get(name, number)

    def follow(self, reference: str) -> Followed:
        """The version an alias points to, read again on `refresh`: ``follow("zones@production")``."""
        parsed = Reference.parse(reference)
        if parsed.alias is None:
            raise InputError(f"{reference!r} names a number, which never moves; follow an alias, or use get")
        return Followed(self, reference)

    def record_parity(self, version: Version, target: str, parity: Parity) -> None:
        """Keep the outcome of a check of golden rows on `target`, passed or not."""
        with self._writing.begin() as connection:
            connection.execute(
                parity_reports.insert().values(
                    model=version.name,
                    number=version.number,
                    target=target,
                    rows=parity.rows,
                    largest_absolute=parity.largest_absolute,
                    largest_relative=parity.largest_relative,
                    label_flips=parity.label_flips,
                    ties=parity.ties,
                    holds=parity.holds,
                    at=self._clock.now(),
                )
            )

    def parity(self, name: str, number: int | None = None) -> list[ParityReport]:
        """The parity reports of a model or of one version, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(_of(parity_reports, name, number)).all()
        return [
            ParityReport(
                row.number,
                row.target,
                Parity(row.rows, row.largest_absolute, row.largest_relative, row.label_flips, row.ties),
                _moment(row.at),
            )
            for row in rows
        ]

    def record_deployment(
        self, version: Version, target: str, location: str, measured: Mapping[str, float] | None = None
    ) -> None:
        """Keep that a version went live on `target`."""
        with self._writing.begin() as connection:
            connection.execute(
                deployments.insert().values(
                    model=version.name,
                    number=version.number,
                    target=target,
                    location=location,
                    measured=dict(measured or {}),
                    at=self._clock.now(),
                )
            )

    def deployments(self, name: str, number: int | None = None) -> list[Deployment]:
        """What went live of a model or of one version, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(_of(deployments, name, number)).all()
        return [Deployment(r.number, r.target, r.location, r.measured, _moment(r.at)) for r in rows]

    def _current(self, name: str, alias: str) -> int:
        with self._engine.connect() as connection:
            number = connection.scalar(_last(name, alias))
        if number is None:
            raise self._unknown(name, f"alias {alias!r}")
        return int(number)

    def _require(self, name: str) -> None:
        if name not in self.models():
            raise self._unknown(name)

    def _version(self, row: Any) -> Version:
        bundle = Bundle.open(self.path / "bundles" / row.digest, row.digest)
        return Version(self, row.model, row.number, bundle, row.metrics, _moment(row.at))

    def _unknown(self, name: str, what: str = "") -> UnknownModel:
        known = self.models()
        if name not in known:
            return UnknownModel(f"no model {name!r} in {self.path}; it has {known}")
        with self._engine.connect() as connection:
            numbers = list(connection.scalars(sa.select(versions.c.number).where(versions.c.model == name)))
        return UnknownModel(
            f"{name!r} has no {what}; it has the versions {sorted(numbers)} "
            f"and the aliases {self.aliases(name)}; promote(name, number, alias) points an alias to a version "
            "(millstream models promote NAME NUMBER ALIAS)"
        )

    def __repr__(self) -> str:
        return f"Registry({str(self.path)!r})"


def _last(name: str, alias: str) -> sa.Select[Any]:
    return (
        sa.select(alias_changes.c.number)
        .where(alias_changes.c.model == name, alias_changes.c.alias == alias)
        .order_by(alias_changes.c.id.desc())
        .limit(1)
    )


def _of(table: sa.Table, name: str, number: int | None) -> sa.Select[Any]:
    query = sa.select(table).where(table.c.model == name).order_by(table.c.id)
    return query if number is None else query.where(table.c.number == number)


def _which(number: object) -> str:
    return "no version" if number is None else f"version {number}"


def _moment(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)
