"""An imported plan as JSON, and what would be faster."""

from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.plans import plan_document
from meshwright.cli.render.units import shown_seconds, shown_share
from meshwright.planner.importing import Imported
from meshwright.planner.layout.description import describe
from meshwright.planner.plan_schema import Plan

# Less than the predictions can tell apart.
AS_FAST = 0.001


def import_document(found: Imported, best: Plan | None) -> dict[str, Any]:
    """Give the JSON form: the plan, what it leaves out, and the faster plan where one was looked for."""
    document = plan_document(found.plan, seconds=None) | {"unmodelled": list(found.unmodelled)}
    if best is None:
        return document
    return document | {
        "improved": {
            "layout": best.layout.model_dump(mode="json"),
            "step_time_s": best.predicted.step_time_s,
            "faster_by": faster_by(found.plan, best),
        }
    }


def faster_by(plan: Plan, best: Plan) -> float:
    """Give by how much the best plan's steps are quicker: tokens of a second, relative."""
    return plan.predicted.step_time_s / best.predicted.step_time_s - 1


def render_improvement(console: Console, plan: Plan, best: Plan) -> None:
    """Say what would be faster on the same launcher."""
    gain, layout = faster_by(plan, best), best.layout.layout()
    if gain <= AS_FAST:
        console.print(Text("You run this; nothing that the launcher runs is faster."))
        return
    console.print(
        Text(
            f"You run this; {describe(layout)} is {shown_share(gain)} faster: "
            f"{shown_seconds(best.predicted.step_time_s)} a step."
        )
    )
