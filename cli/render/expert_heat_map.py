"""The load of each device in each layer over the mean, before and after, drawn."""

from io import BytesIO

import matplotlib as mpl
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from meshwright.cli.render.accuracy_figure import DOTS_PER_INCH, METADATA, STYLE
from meshwright.cli.render.figure_kind import FigureKind
from meshwright.costmodels.layout import FloatArray

WIDTH_INCHES, LEAST_INCHES, LAYER_INCHES, MOST_INCHES = 9.5, 2.2, 0.06, 7.0


def draw_heat_map(before: FloatArray, after: FloatArray, kind: FigureKind) -> bytes:
    """Draw loads over the mean [layers, devices], both on one scale."""
    height = min(MOST_INCHES, LEAST_INCHES + LAYER_INCHES * len(after))
    most = max(float(before.max()), float(after.max()), 1.0 + 1e-6)
    content = BytesIO()
    with mpl.rc_context({**STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        norm = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=most)
        for axes, title, loads in zip(panels, ("before", "after"), (before, after), strict=True):
            drawn = axes.imshow(loads, aspect="auto", interpolation="nearest", cmap="RdBu_r", norm=norm)
            axes.set_title(f"{title}: the busiest has {loads.max(axis=1).mean():.3f} of the mean")
            axes.set_xlabel("device")
        panels[0].set_ylabel("layer")
        figure.colorbar(drawn, ax=panels, label="load over the mean")
        figure.savefig(content, format=kind, metadata=dict(METADATA[kind]))
    return content.getvalue()
