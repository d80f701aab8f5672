"""What was emitted, as JSON, as a table of files, and as lines on what relaxation changed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_share
from meshwright.planner.emission import CONSUMERS
from meshwright.planner.emission.emission import Emission

PURPOSES = {
    "run.sh": "starts the processes of one node",
    "job.sbatch": "the nodes under Slurm",
    "pytorchjob.yaml": "the nodes under Kubernetes",
    "skypilot.yaml": "the nodes as a SkyPilot task",
    "plan.yaml": "the plan itself",
}


def emission_document(emission: Emission, paths: Sequence[Path]) -> dict[str, Any]:
    """Give the JSON form of an emission that was written."""
    consumer = CONSUMERS[emission.target]
    return {
        "target": str(emission.target),
        "consumer": consumer.name,
        "version": consumer.version,
        "files": [str(path) for path in paths],
        "relaxed": list(emission.relaxed),
        "slower_by": emission.slower_by,
    }


def render_emission(console: Console, emission: Emission, paths: Sequence[Path]) -> None:
    """Print what each file is for."""
    consumer = CONSUMERS[emission.target]
    table = plain_table(f"For {consumer.name} {consumer.version}", ["file", "what it is"], [])
    for path in paths:
        add_row(table, printable(str(path)), PURPOSES.get(path.name, f"read by {consumer.name}"))
    console.print(table)


def render_serving(console: Console, engine: str, paths: Sequence[Path]) -> None:
    """Print what each file of a served placement is for."""
    purposes = {
        "run.sh": "starts the engine on a node",
        "expert_locations.json": "the expert of each slot, as the engine has it",
        "placement.json": "the placement itself",
    }
    table = plain_table(f"For {engine}", ["file", "what it is"], [])
    for path in paths:
        add_row(table, printable(str(path)), purposes[path.name])
    console.print(table)


def relaxation_lines(emission: Emission) -> Iterator[str]:
    """Say what was changed so that the target can run it, and what that costs."""
    if emission.relaxed:
        name, slower_by = CONSUMERS[emission.target].name, emission.slower_by
        cost = f"a step takes {shown_share(abs(slower_by))} {'longer' if slower_by >= 0 else 'less'}"
        yield f"{name} can't run the plan as it is; with what it can, {cost}: {'; '.join(emission.relaxed)}"
