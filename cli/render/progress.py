"""How far a search is, in one line."""

from collections.abc import Callable

from meshwright.cli.render.units import shown_bytes, shown_seconds, shown_share
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Progress

DEVICE_SECONDS = "{:,.0f} device-seconds"
UNITS: dict[Objective, Callable[[float], str]] = {
    Objective.COST: DEVICE_SECONDS.format,
    Objective.ENERGY: DEVICE_SECONDS.format,
    Objective.MEMORY: shown_bytes,
}


def unit_of(objective: Objective) -> Callable[[float], str]:
    """Give what shows what a layout comes to under an objective."""
    return UNITS.get(objective, shown_seconds)


def shown_progress(objective: Objective) -> Callable[[Progress], str]:
    """Give what shows the progress of a search for an objective."""
    shown = unit_of(objective)

    def show(progress: Progress) -> str:
        waits = f"{progress.waiting:,} branches wait"
        if progress.best is None:
            return f"{progress.devices:,} devices: nothing that fits yet, {waits}"
        words = [f"{progress.devices:,} devices: best {shown(progress.best)}"]
        if 0 < progress.bound < progress.best:
            gap = shown_share(progress.best / progress.bound - 1)
            words.append(f"none can be below {shown(progress.bound)}, which that is {gap} above")
        return ", ".join([*words, waits])

    return show
