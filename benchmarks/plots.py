"""Pictures of kept results: what grows with the number of listeners, of each subject."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.columns import STREAMED
from benchmarks.subjects import SUBJECTS

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

INCHES: Final = (9.0, 7.6)
STYLE: Final[dict[RcKeyType, Any]] = {
    "svg.fonttype": "none",  # text stays text: small, and found by a search
    "svg.hashsalt": "relaycore",  # the same results make the same file
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}
COLOURS: Final = {
    "server": "#b2182b",
    "server-2": "#7b3294",
    "server-no-realtime": "#d6604d",
    "relay": "#f4847a",
    "group-floor": "#7f7f7f",
    "bun": "#1f4e9c",
    "picows": "#2c9f6b",
    "nchan": "#8c6d1f",
    "ws": "#17a2b8",
    "aiohttp": "#5e8fd6",
    "websockets": "#9a9a2f",
    "icecast": "#4d4d4d",
}
MARKS: Final = "os^vDP*Xdh<"
LISTENERS: Final = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


@dataclass(frozen=True, slots=True)
class Point:
    """What so many listeners of a subject got and took: medians of the ramps that came so far."""

    listeners: int
    kept_up: bool
    p99_ms: float
    server: float
    resident_mb: float
    tcp_mb: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the pictures side by side."""

    title: str
    of: Callable[[Point], float]
    logarithmic: bool


PANELS: Final = (
    Panel("Delay from tick to receipt, 99 %, ms", lambda p: p.p99_ms, True),
    Panel("CPU of the server, cores", lambda p: p.server, False),
    Panel("Memory of the server's process, MB", lambda p: p.resident_mb, True),
    Panel("Memory in the kernel's TCP buffers, both ends, MB", lambda p: p.tcp_mb, True),
)


def curve(result: Mapping[str, Any], subject: str) -> list[Point]:
    """The steps of one subject's ramps in a result of `listeners`, by number of listeners.

    A step that was tried twice counts as it was at the end. Up to the median of their limits the
    ramps kept up. Steps in which nothing came, since not everybody got in, have no point.
    """
    (limit,) = (row["limit"] for row in result["summary"] if row["subject"] == subject)
    steps: dict[int, dict[int, Mapping[str, Any]]] = {}
    for step in result["steps"]:
        if step["subject"] == subject and step["frames"]:
            steps.setdefault(step["listeners"], {})[step["round"]] = step

    def median(of_round: Mapping[int, Mapping[str, Any]], name: str) -> float:
        return float(statistics.median(step[name] for step in of_round.values()))

    return [
        Point(
            listeners,
            listeners <= limit["median"],
            median(of_round, "p99_ms"),
            median(of_round, "server"),
            median(of_round, "resident") / 1e6,
            median(of_round, "tcp_buffers") / 1e6,
        )
        for listeners, of_round in sorted(steps.items())
    ]


def against_listeners(result: Mapping[str, Any]) -> str:
    """An SVG of delay, CPU and memory against listeners, of a result of `listeners`.

    Its background is white, for pages light and dark.
    """
    curves = {row["subject"]: curve(result, row["subject"]) for row in result["summary"]}
    with mpl.rc_context(STYLE):
        figure = Figure(INCHES, facecolor="white", layout="constrained")
        for panel, axes in zip(PANELS, figure.subplots(2, 2).flat, strict=True):
            _draw(axes, panel, curves)
            if panel is PANELS[0]:
                most = result["steps"][0]["most_p99_ms"]
                axes.axhline(most, color="#444444", linestyle=(0, (4, 3)), linewidth=1)
                axes.annotate(
                    f"in time: {most:g} ms",
                    (0, most),
                    xycoords=("axes fraction", "data"),
                    xytext=(4, 3),
                    textcoords="offset points",
                )
        figure.suptitle(result["title"], fontsize=10)
        for axes in figure.axes[2:]:
            axes.set_xlabel("listeners")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        file = io.StringIO()
        # Neither the day nor the version of what drew it: a picture changes with its results.
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _draw(axes: Axes, panel: Panel, curves: Mapping[str, Sequence[Point]]) -> None:
    axes.set_title(panel.title, loc="left", fontsize=9)
    for number, (subject, points) in enumerate(curves.items()):
        shown = [p for p in points if panel.of(p) > 0 or not panel.logarithmic]
        colour = COLOURS.get(subject, "black")
        own = subject in SUBJECTS
        style: dict[str, Any] = {
            "color": colour,
            "marker": MARKS[number % len(MARKS)],
            "linewidth": 2.2 if subject == "server" else STYLE["lines.linewidth"],
            "zorder": 3 if own else 2,
        }
        axes.plot(
            [p.listeners for p in shown],
            [panel.of(p) for p in shown],
            markevery=[i for i, p in enumerate(shown) if p.kept_up],
            label=STREAMED.get(subject, subject).replace("`", ""),
            **style,
        )
        failed = [p for p in shown if not p.kept_up]
        axes.plot(
            [p.listeners for p in failed],
            [panel.of(p) for p in failed],
            markerfacecolor="white",
            **style | {"linestyle": "none"},
        )
    axes.set_xscale("log")
    axes.set_xticks([n for n in LISTENERS if _within(n, curves)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)


def _within(count: int, curves: Mapping[str, Sequence[Point]]) -> bool:
    counts = [p.listeners for points in curves.values() for p in points]
    return bool(counts) and min(counts) <= count <= max(counts) * 1.2


def _plain(value: float, position: int | None = None) -> str:
    """A number as people write it."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
