"""`skypilot.yaml`: the plan's nodes as a SkyPilot task, for the devices that it rents."""

import yaml

from meshwright.planner.emission.launch.nodes import Nodes
from meshwright.planner.emission.shell import comment

# SkyPilot's names (docs.skypilot.co, `sky gpus list`) of the catalog's devices.
ACCELERATORS = {
    "a100-sxm-40gb": "A100",
    "a100-sxm-80gb": "A100-80GB",
    "h100-sxm-80gb": "H100",
    "h200-sxm-141gb": "H200",
    "b200-sxm-180gb": "B200",
    "b300-sxm-288gb": "B300",
    "gb200-nvl72": "GB200",
    "mi300x": "MI300X",
}
RUN = """\
export NODE_RANK="$SKYPILOT_NODE_RANK"
MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
export MASTER_ADDR
exec bash run.sh
"""


def skypilot_task(nodes: Nodes, *, header: str) -> str | None:
    """Give the task, to be launched from the folder; None where SkyPilot has no such device."""
    accelerator = ACCELERATORS.get(nodes.device)
    if accelerator is None:
        return None
    document = {
        "name": nodes.job,
        "workdir": ".",
        "num_nodes": nodes.nodes,
        "resources": {"accelerators": f"{accelerator}:{nodes.devices}"},
        "run": RUN,
    }
    return comment(header) + yaml.dump(document, Dumper=_BlockDumper, sort_keys=False)


class _BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Choose the style by the text."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_BlockDumper.add_representer(str, _BlockDumper.represent_str)
