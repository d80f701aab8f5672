"""`run.sh`: what starts the processes of one node, however it got there."""

from meshwright.planner.emission.launch.nodes import Nodes
from meshwright.planner.emission.launch.program import Program
from meshwright.planner.emission.shell import HERE, exports, script

PORT = 29500


def node_script(program: Program, nodes: Nodes, *, header: str) -> str:
    """Give the script. Several nodes must say which one each is, and where the first one listens."""
    return script(
        header,
        (
            HERE,
            f"export NODES={nodes.nodes} DEVICES_PER_NODE={nodes.devices} MASTER_PORT=${{MASTER_PORT:-{PORT}}}",
            *_place(nodes),
            *exports(program.environment),
            *(('export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"',) if program.imports else ()),
            *(f'source "$here/{name}"' for name in program.sources),
            f'exec {program.command} "$@"',
        ),
    )


def _place(nodes: Nodes) -> tuple[str, ...]:
    if nodes.nodes == 1:
        return ("export NODE_RANK=0 MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}",)
    return (
        'export NODE_RANK=${NODE_RANK:?"set NODE_RANK to the number of this node, from 0 in the order of the plan"}',
        'export MASTER_ADDR=${MASTER_ADDR:?"set MASTER_ADDR to the host name of node 0"}',
    )
