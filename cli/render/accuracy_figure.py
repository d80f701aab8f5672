"""Predictions against measurements, drawn: step times above, memory below.

Left, each row is a point, predicted against measured on logarithmic axes, with the band of 10 % around the diagonal.
Right, the same rows by source: the ratio of predicted to measured, a tick a row and a bar over the middle half, with
the count of rows and the mean error without sign beside them. A source has one colour on all sides; rows of medium and
low trust are fainter.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from math import nan
from statistics import fmean, quantiles
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from meshwright.catalog.errors import InputError
from meshwright.cli.render.figure_kind import FigureKind
from meshwright.cli.render.units import shown_share
from meshwright.planner.accuracy.bars import source_name
from meshwright.planner.accuracy.case import Trust
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.uncertainty import Quantity

# Nothing of when and by what it was drawn, so that the same rows give the same bytes.
METADATA: Mapping[FigureKind, Mapping[str, None]] = {
    FigureKind.PNG: {"Software": None},
    FigureKind.SVG: {"Date": None, "Creator": None},
    FigureKind.PDF: {"CreationDate": None, "Creator": None, "Producer": None},
}
STYLE: Any = {
    "svg.hashsalt": "meshwright",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
}
RATIO_TICKS = (0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
RATIO_LIMITS = (0.42, 2.4)
BAND = (0.9, 1.1)
BAND_COLOUR = "0.88"
WIDTH_INCHES, SOURCE_INCHES, FRAME_INCHES, LEAST_INCHES = 9.5, 0.2, 1.0, 3.2
DOTS_PER_INCH = 150
GIB = 2**30
ALPHAS: Mapping[Trust | None, float] = {Trust.MEDIUM: 0.6, Trust.LOW: 0.35}

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """The rows of one kind of quantity, by the name of their source; `scale` seconds or bytes are one `unit`."""

    title: str
    unit: str
    scale: float
    sources: Mapping[str, Sequence[Row]]

    @property
    def height_inches(self) -> float:
        return max(LEAST_INCHES, SOURCE_INCHES * len(self.sources) + FRAME_INCHES)


def draw_accuracy(rows: Sequence[Row], kind: FigureKind) -> bytes:
    """Draw rows. Raises InputError where there are none."""
    panels = _panels(rows)
    if not panels:
        raise InputError("there is nothing to draw: no case was both measured and predicted")
    colours = _colours(rows)
    heights = [panel.height_inches for panel in panels]
    content = BytesIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.subplots(len(panels), 2, squeeze=False, height_ratios=heights, width_ratios=(1, 1.1))
        for (left, right), panel in zip(axes, panels, strict=True):
            _draw_points(left, panel, colours)
            _draw_ratios(right, panel, colours)
        figure.savefig(content, format=kind, metadata=dict(METADATA[kind]))
    return content.getvalue()


def _panels(rows: Iterable[Row]) -> list[_Panel]:
    times: dict[str, list[Row]] = defaultdict(list)
    sizes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        name = source_name(row.file)
        if row.quantity is Quantity.STEP_TIME:
            times[name].append(row)
        else:
            sizes[f"{name}, {row.quantity}"].append(row)
    panels = (
        _Panel(title="step time", unit="s", scale=1.0, sources=times),
        _Panel(title="peak memory", unit="GiB", scale=GIB, sources=sizes),
    )
    return [panel for panel in panels if panel.sources]


def _colours(rows: Iterable[Row]) -> Mapping[str, Colour]:
    """Give each file a colour: of 20 that are told apart, the strong ones first."""
    strong, muted = mpl.color_sequences["tab10"], mpl.color_sequences["tab20b"]
    palette = [to_rgb(colour) for colour in (*strong, *muted[::4], *muted[2::4])]
    return dict(zip(dict.fromkeys(row.file for row in rows), cycle(palette), strict=False))


def _draw_points(axes: Axes, panel: _Panel, colours: Mapping[str, Colour]) -> None:
    measured = [row.measured / panel.scale for rows in panel.sources.values() for row in rows]
    predicted = [row.predicted / panel.scale for rows in panel.sources.values() for row in rows]
    ends = min(*measured, *predicted) / 1.3, max(*measured, *predicted) * 1.3
    axes.fill_between(ends, [BAND[0] * end for end in ends], [BAND[1] * end for end in ends], color=BAND_COLOUR, lw=0)
    axes.plot(ends, ends, color="0.5", lw=0.8)
    for rows in panel.sources.values():
        for alpha, alike in _by_alpha(rows):
            axes.plot(
                [row.measured / panel.scale for row in alike],
                [row.predicted / panel.scale for row in alike],
                "o",
                color=(*colours[rows[0].file], alpha),
                markersize=3,
                markeredgewidth=0,
            )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal", anchor="N")
    axes.set(title=f"Predicted against measured {panel.title}; grey: within 10 %")
    axes.set(xlabel=f"measured, {panel.unit} (fainter: medium or low trust)", ylabel=f"predicted, {panel.unit}")


def _by_alpha(rows: Iterable[Row]) -> Iterator[tuple[float, list[Row]]]:
    """Give the rows that are drawn alike, with their opacity; the rows to trust come last, on top."""
    groups: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        groups[ALPHAS.get(row.case.trust, 1.0)].append(row)
    yield from sorted(groups.items(), key=lambda group: group[0])


def _draw_ratios(axes: Axes, panel: _Panel, colours: Mapping[str, Colour]) -> None:
    axes.axvspan(*BAND, color=BAND_COLOUR, lw=0)
    axes.axvline(1.0, color="0.5", lw=0.8)
    for height, rows in enumerate(panel.sources.values()):
        _draw_source(axes, height, rows, colours[rows[0].file])
        told = f"{len(rows)}, {shown_share(fmean(abs(row.error) for row in rows))}"
        axes.annotate(told, (1.02, height), xycoords=("axes fraction", "data"), va="center")
    axes.set(xscale="log", xlim=RATIO_LIMITS, ylim=(len(panel.sources) - 0.4, -0.6))
    axes.xaxis.set_major_locator(FixedLocator(RATIO_TICKS))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in RATIO_TICKS]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(panel.sources)), list(panel.sources))
    axes.tick_params(axis="y", length=0)
    axes.set(title="Predicted over measured, by source; right: rows, mean |error|")
    axes.set(xlabel="predicted over measured; triangles lie beyond the axis")


def _draw_source(axes: Axes, height: int, rows: Sequence[Row], colour: Colour) -> None:
    least, most = RATIO_LIMITS
    ratios = [row.predicted / row.measured for row in rows]
    for alpha, alike in _by_alpha(rows):
        within = [row.predicted / row.measured for row in alike if least <= row.predicted / row.measured <= most]
        axes.plot(*_ticks(within, height), color=(*colour, alpha), lw=0.8)
    for marker, edge, beyond in (("<", least, min(ratios) < least), (">", most, max(ratios) > most)):
        if beyond:
            axes.plot([edge], [height], marker, color=colour, markersize=5, clip_on=False)
    if len(ratios) > 1:
        lower, median, upper = quantiles(ratios, n=4, method="inclusive")
        axes.barh(height, upper - lower, left=lower, height=0.5, color=(*colour, 0.3))
        axes.plot([median, median], [height - 0.35, height + 0.35], color="black", lw=1.2)


def _ticks(places: Iterable[float], height: float) -> tuple[list[float], list[float]]:
    """Give one line that lifts the pen between upright strokes, which takes less of a file than as many marks."""
    along = [value for place in places for value in (place, place, nan)]
    return along, [height - 0.25, height + 0.25, nan] * (len(along) // 3)
