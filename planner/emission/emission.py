"""What is emitted for a plan, and writing it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.folder_replacement import write_folder
from meshwright.planner.plan_schema import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """The files of a plan for a launcher.

    files: text by name, relative to the folder, in the order to read them; the same for the same plan.
    plan: what they run; with relaxation, another layout than the one asked for.
    relaxed: what was changed, a line each; empty where they run the plan as it is.
    slower_by: by how much the step of `plan` is longer than that of the plan asked for, relative.
    """

    target: EmitTarget
    files: Mapping[str, str]
    plan: Plan
    relaxed: tuple[str, ...] = ()
    slower_by: float = 0.0


def write_emission(emission: Emission, folder: str | Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write the files into a folder of their own, and give their paths.

    With `force` the folder may be there; it is then replaced as a whole.

    Raises InputError where the folder is there already, or can't be written; nothing is left behind.
    """
    return write_folder(emission.files, folder, force=force)
