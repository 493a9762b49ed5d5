"""The report of the quick start: one self-contained HTML page, and the same figures as JSON."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["Evidence", "write_html", "write_json"]

matplotlib.use("Agg")

INK, STREAM, PLAIN, FAINT = "#1d2733", "#0b7285", "#e8590c", "#adb5bd"


@dataclass(frozen=True)
class Evidence:
    """What the plots are drawn from, beside the figures of the report.

    Attributes:
        late: (rows,) bool, which flights of the last quarter arrived late.
        score: (rows,) float64, their predicted probability.
        score_plain: (rows,) float64, by the model without the streamed features.
        hour: (rows,) int64, local hour of the scheduled departure.
    """

    late: NDArray[np.bool_]
    score: NDArray[np.float64]
    score_plain: NDArray[np.float64]
    hour: NDArray[np.int64]


def write_json(figures: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(figures, indent=2, sort_keys=False) + "\n")


def write_html(figures: Mapping[str, Any], evidence: Evidence, path: Path) -> None:
    plots = [
        (
            "Who will be late?",
            "ROC curve on October to December.",
            lambda axes: _roc(axes, figures, evidence),
        ),
        (
            "Delay by hour",
            "Delays build up over the day; the model follows.",
            lambda axes: _by_hour(axes, evidence),
        ),
        ("Speedup", "The same bits on one worker and on more.", lambda axes: _speedup(axes, figures)),
        (
            "One model, five answers",
            "Largest difference from the estimator's own predictions.",
            lambda axes: _parity(axes, figures),
        ),
    ]
    cards = "\n".join(
        f"<figure><h2>{html.escape(title)}</h2>{_svg(draw)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for title, caption, draw in plots
    )
    tables = "\n".join(_table(title, rows) for title, rows in _tables(figures).items())
    path.write_text(PAGE.format(verdict=_verdict(figures), cards=cards, tables=tables))


def _verdict(figures: Mapping[str, Any]) -> str:
    if figures["failures"]:
        return "Failed: " + html.escape("; ".join(figures["failures"]))
    return (
        f"{figures['events_in']:,} events in, {figures['events_out']:,} predictions out, none lost, "
        f"none counted twice; AUC {figures['auc']:.4f} with the streamed features, "
        f"{figures['auc_without_stream_features']:.4f} without."
    )


def _tables(figures: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    parity = [
        (name, f"{row['largest_absolute_difference']:.1e} at most, {row['label_flips']} label flips")
        for name, row in figures["parity"].items()
    ]
    return {
        "Events": [
            ("in", f"{figures['events_in']:,}"),
            ("late", f"{figures['late']:,}"),
            ("feature rows", f"{figures['feature_rows']:,}"),
            ("predictions out", f"{figures['events_out']:,}"),
        ],
        "Quality, last quarter": [
            (name.replace("_", " "), f"{figures[name]:.4f}")
            for name in ("auc", "auc_without_stream_features", "precision", "recall", "accuracy")
        ],
        f"Training on {figures['workers']} workers": [
            ("speedup", f"{figures['speedup']:.2f}"),
            ("efficiency", f"{figures['efficiency']:.0%}"),
            ("forecast for 8 workers", f"{figures['forecast_speedup_8_workers']:.2f}"),
            ("same bits as one worker", "yes" if figures["same_bits"] else "no"),
        ],
        "Parity": parity,
        "Seconds": [(name, f"{seconds:.1f}") for name, seconds in figures["seconds"].items()],
    }


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
    return f"<section><h2>{html.escape(title)}</h2><table>{cells}</table></section>"


def _svg(draw: Callable[[Axes], None]) -> str:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


def _roc(axes: Axes, figures: Mapping[str, Any], evidence: Evidence) -> None:
    for score, colour, label, auc in (
        (evidence.score, STREAM, "with streamed features", figures["auc"]),
        (evidence.score_plain, PLAIN, "without", figures["auc_without_stream_features"]),
    ):
        order = np.argsort(-score, kind="stable")
        hits = np.cumsum(evidence.late[order]) / max(1, evidence.late.sum())
        alarms = np.cumsum(~evidence.late[order]) / max(1, (~evidence.late).sum())
        step = max(1, len(hits) // 500)
        axes.plot(alarms[::step], hits[::step], color=colour, label=f"{label}: AUC {auc:.3f}")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(frameon=False, loc="lower right")


def _by_hour(axes: Axes, evidence: Evidence) -> None:
    hours, index = np.unique(evidence.hour, return_inverse=True)
    rows = np.bincount(index)
    keep = rows >= 50
    actual = np.bincount(index, evidence.late) / rows
    predicted = np.bincount(index, evidence.score) / rows
    axes.bar(hours[keep], actual[keep], color=FAINT, label="arrived over 15 min late")
    axes.plot(hours[keep], predicted[keep], color=STREAM, marker="o", markersize=3, label="mean prediction")
    axes.set_xticks(range(int(hours[keep].min()), 24, 3))
    axes.set(xlabel="scheduled hour of departure, local", ylabel="share of flights")
    axes.legend(frameon=False, loc="upper left")


def _speedup(axes: Axes, figures: Mapping[str, Any]) -> None:
    scaling = {int(workers): seconds for workers, seconds in figures["training_seconds_by_workers"].items()}
    workers = sorted(scaling)
    measured = [scaling[1] / scaling[p] for p in workers]
    bars = axes.bar([str(p) for p in workers], measured, color=STREAM, width=0.5)
    axes.bar_label(bars, [f"{value:.2f}" for value in measured])
    axes.plot([str(p) for p in workers], workers, color=FAINT, linestyle="--", label="ideal")
    axes.set(xlabel="workers", ylabel="speedup", ylim=(0, max(workers) * 1.2))
    axes.legend(frameon=False, loc="upper left")


def _parity(axes: Axes, figures: Mapping[str, Any]) -> None:
    floor = 1e-17
    names = list(figures["parity"])
    worst = [max(floor, figures["parity"][name]["largest_absolute_difference"]) for name in names]
    axes.barh(names, worst, left=0, color=STREAM)
    axes.set_xscale("log")
    axes.set_xlim(floor, 1e-5)
    axes.axvline(1e-6, color=PLAIN, linestyle="--", linewidth=1)
    axes.text(1e-6, -0.45, " bound", color=PLAIN, fontsize=8)
    axes.set_xlabel("largest absolute difference of a probability")
    axes.invert_yaxis()


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Millstream: the whole way on real flights</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1d2733; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.05rem; margin: 0 0 .5rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1.5rem; }}
figure, section {{ margin: 0; padding: 1rem; border: 1px solid #dee2e6; border-radius: .5rem; }}
img {{ width: 100%; }} figcaption {{ color: #5c6773; font-size: .9rem; }}
table {{ border-collapse: collapse; width: 100%; }} th {{ font-weight: 400; text-align: left; color: #5c6773; }}
td {{ text-align: right; font-variant-numeric: tabular-nums; }} th, td {{ padding: .15rem 0; }}
.verdict {{ font-size: 1.1rem; }}
</style></head><body>
<h1>The whole way on real flights</h1>
<p class="verdict">{verdict}</p>
<main>
{cards}
{tables}
</main></body></html>
"""
