"""The classes of a target: its distinct labels, sorted, found in one read of the column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.data import Part
from millstream.errors import InputError
from millstream.learn.distinct import UNION
from millstream.parallel import Context, Done, Meta

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels:
    """An algorithm of one step: ``Done.params["classes"]`` holds the sorted labels of the target."""

    single_pass = True
    combine = {"classes": UNION}  # noqa: RUF012

    def init(self, meta: Meta, rng: np.random.Generator) -> dict[str, Any]:
        if meta.schema.target is None:
            raise InputError(
                f"no column of {list(meta.schema.names)} is the target; "
                "name it: dataset.with_roles(target='late')"
            )
        return {"target": meta.schema.target}

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, NDArray[Any]]:
        name = str(params["target"])
        column = part.to_table([name])[name]
        if column.null_count:
            raise InputError(f"target {name!r} has {column.null_count} nulls; drop those rows, or fill them")
        classes = np.unique(column.to_numpy())
        if classes.dtype.kind == "f" and not np.all(classes == np.floor(classes)):
            value = classes[classes != np.floor(classes)][0]
            raise InputError(
                f"target {name!r} holds {value}; a classifier learns classes: compare it with a threshold first"
            )
        return {"classes": classes}

    def update(self, state: Mapping[str, Any], statistic: Mapping[str, NDArray[Any]]) -> Done:
        return Done(dict(statistic))
