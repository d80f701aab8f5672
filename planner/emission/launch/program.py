"""What a node runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TORCHRUN = (
    'torchrun --nnodes "$NODES" --nproc-per-node "$DEVICES_PER_NODE" --node-rank "$NODE_RANK" '
    '--master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a node runs.

    command: words of bash, quoted where they need to be; $here is the folder of the emitted files, and the variables
    of TORCHRUN are set. environment: variables to set before, None to unset. sources: scripts to read before.
    imports: Python is to find the emitted modules.
    """

    command: str
    environment: Mapping[str, str | None] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    imports: bool = False
