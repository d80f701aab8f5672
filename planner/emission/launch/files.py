"""All files that start a plan, for any target."""

from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.kubernetes import pytorch_job
from meshwright.planner.emission.launch.node_script import node_script
from meshwright.planner.emission.launch.nodes import nodes_of
from meshwright.planner.emission.launch.program import Program
from meshwright.planner.emission.launch.skypilot import skypilot_task
from meshwright.planner.emission.launch.slurm import slurm_script
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan


def launch_files(plan: Plan, target: EmitTarget, program: Program) -> dict[str, str]:
    """Give run.sh, job.sbatch, pytorchjob.yaml and, for devices that it rents, skypilot.yaml."""
    nodes, top = nodes_of(plan), header(plan, target)
    files = {
        "run.sh": node_script(program, nodes, header=top),
        "job.sbatch": slurm_script(nodes, header=top),
        "pytorchjob.yaml": pytorch_job(nodes, header=top),
    }
    task = skypilot_task(nodes, header=top)
    return files if task is None else files | {"skypilot.yaml": task}
