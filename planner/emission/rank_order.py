"""The order of ranks of targets that know one alone."""

from collections.abc import Iterator

from meshwright.catalog.axis_order import AxisOrder
from meshwright.costmodels.layout import Layout
from meshwright.planner.emission.obstacle import Obstacle


def pipeline_outermost(layout: Layout) -> Iterator[Obstacle]:
    """Give the obstacle of a layout whose replicas lie farther apart than its stages."""
    if layout.axis_order is not AxisOrder.PIPELINE_OUTERMOST:
        usual = {"axis_order": AxisOrder.PIPELINE_OUTERMOST}
        yield Obstacle(path="layout.axis_order", feature="numbers ranks with the pipeline outermost", instead=(usual,))
