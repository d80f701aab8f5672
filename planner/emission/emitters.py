"""What each target has: what it can't express, its files, and what a node runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from meshwright.planner.emission.accelerate import files as accelerate_files
from meshwright.planner.emission.accelerate import obstacles as accelerate_obstacles
from meshwright.planner.emission.deepspeed import files as deepspeed_files
from meshwright.planner.emission.deepspeed import obstacles as deepspeed_obstacles
from meshwright.planner.emission.launch.program import Program
from meshwright.planner.emission.megatron import files as megatron_files
from meshwright.planner.emission.megatron import obstacles as megatron_obstacles
from meshwright.planner.emission.megatron_0_12 import files as megatron_0_12_files
from meshwright.planner.emission.megatron_0_12 import obstacles as megatron_0_12_obstacles
from meshwright.planner.emission.megatron_bridge import files as megatron_bridge_files
from meshwright.planner.emission.megatron_bridge import obstacles as megatron_bridge_obstacles
from meshwright.planner.emission.nanotron import files as nanotron_files
from meshwright.planner.emission.nanotron import obstacles as nanotron_obstacles
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.emission.torch import files as torch_files
from meshwright.planner.emission.torch import obstacles as torch_obstacles
from meshwright.planner.emission.torchtitan import files as torchtitan_files
from meshwright.planner.emission.torchtitan import obstacles as torchtitan_obstacles
from meshwright.planner.plan_schema import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """How plans are emitted for one target.

    obstacles: all that it can't express of a plan. files: text by name, of plans without obstacles, and program: what
    a node runs with them.
    """

    obstacles: Callable[[Plan], Iterator[Obstacle]]
    files: Callable[[Plan], Mapping[str, str]]
    program: Callable[[Plan], Program]


EMITTERS: Mapping[EmitTarget, Emitter] = {
    EmitTarget.MEGATRON: Emitter(
        obstacles=megatron_obstacles.obstacles, files=megatron_files.files, program=megatron_files.program
    ),
    EmitTarget.MEGATRON_0_12: Emitter(
        obstacles=megatron_0_12_obstacles.obstacles,
        files=megatron_0_12_files.files,
        program=megatron_0_12_files.program,
    ),
    EmitTarget.TORCHTITAN: Emitter(
        obstacles=torchtitan_obstacles.obstacles, files=torchtitan_files.files, program=torchtitan_files.program
    ),
    EmitTarget.DEEPSPEED: Emitter(
        obstacles=deepspeed_obstacles.obstacles, files=deepspeed_files.files, program=deepspeed_files.program
    ),
    EmitTarget.ACCELERATE: Emitter(
        obstacles=accelerate_obstacles.obstacles, files=accelerate_files.files, program=accelerate_files.program
    ),
    EmitTarget.MEGATRON_BRIDGE: Emitter(
        obstacles=megatron_bridge_obstacles.obstacles,
        files=megatron_bridge_files.files,
        program=megatron_bridge_files.program,
    ),
    EmitTarget.NANOTRON: Emitter(
        obstacles=nanotron_obstacles.obstacles, files=nanotron_files.files, program=nanotron_files.program
    ),
    EmitTarget.TORCH: Emitter(
        obstacles=torch_obstacles.obstacles, files=torch_files.files, program=torch_files.program
    ),
}
