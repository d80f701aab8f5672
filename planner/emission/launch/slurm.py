"""`job.sbatch`: the plan's nodes under Slurm, in the order of its host list, which is the order of the ranks."""

from meshwright.planner.emission.launch.nodes import Nodes
from meshwright.planner.emission.shell import comment

ORDER = """Nodes are numbered in the order of SLURM_JOB_NODELIST. To give them an order of your own, which ranks count
through, submit with SLURM_HOSTFILE set to a file of one host a line, and --distribution=arbitrary."""


def slurm_script(nodes: Nodes, *, header: str) -> str:
    """Give the batch script: one task a node, which runs run.sh."""
    options = (
        f"--job-name={nodes.job}",
        f"--nodes={nodes.nodes}",
        "--ntasks-per-node=1",
        f"--gpus-per-node={nodes.devices}",
        "--exclusive",
        "--distribution=block",
    )
    return (
        "#!/usr/bin/env bash\n"
        + "".join(f"#SBATCH {option}\n" for option in options)
        + comment(header)
        + comment(ORDER)
        + "set -euo pipefail\n"
        # Slurm runs a copy of this script: the files are where it was submitted from.
        + "here=${PLAN_FOLDER:-$SLURM_SUBMIT_DIR}\n"
        + 'hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")\n'
        # Of a pipe to head, pipefail would make a failure where the list is longer than the pipe holds.
        + "export MASTER_ADDR=${hosts%%$'\\n'*}\n"
        + 'srun bash -c \'NODE_RANK=$SLURM_NODEID exec bash "$0/run.sh" "$@"\' "$here" "$@"\n'
    )
