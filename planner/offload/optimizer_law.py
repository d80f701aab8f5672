"""What the optimizer's step takes, of P parameters a rank, by where their shares are updated.

    c   on the host's processors            f   on the device, streamed from the host and back
    g   on the device, resident             n   of c: states on drives

Streams and updates run beside one another, so that the step takes as long as the busiest of

    processors     c P / U_cpu
    device         (f + g) P / U_gpu
    link in        (12 f + 2 c) P / B        fp32 weights and moments; 16-bit weights from the host
    link out       12 f P / B
    memory bus     R (32 c + 24 f + 24 n) P / D     R ranks a node: an update reads 16 bytes and writes 12, of which 4
                                             are read first; what streams is read and written once
    drives         24 n P / N

Without overlap, as in ZeRO-Offload and with a twin-flow ratio, the host updates, then casts and copies what it has:

    max(c P / U_cpu, 32 R c P / D) + max(2 c P / B, 8 R c P / D)

where the cast reads 4 bytes, and reads and writes 2. Fitted to published logs in docs/offload.md.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.offload.host import Host

STATE_BYTES = 12
WEIGHT_BYTES = 2
UPDATE_BUS_BYTES = 32
STREAM_BUS_BYTES = 24
CAST_BUS_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of the parameters: numbers, or arrays of as many candidates. nvme: of those of the host, on drives."""

    cpu: FloatArray | float
    streamed: FloatArray | float
    resident: FloatArray | float
    nvme: FloatArray | float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerWork:
    """parameters: P of a rank. device_s: of updating them all on the device. weight_bytes: of one that goes back.

    drained: gradients leave for the host as backward passes make them; else they do when the optimizer steps.
    gradient_bytes: of one of them on the way. tensors: parameters of a rank by tensor, in the model's order.
    """

    parameters: float
    device_s: float
    weight_bytes: float = WEIGHT_BYTES
    gradient_bytes: float = 2.0
    drained: bool = True
    tensors: tuple[float, ...] = ()


def overlapped_rows_s(work: OptimizerWork, host: Host, shares: Shares) -> dict[str, FloatArray]:
    """Give the seconds of each row above, for one or many shares."""
    parameters, rates = work.parameters, host.rates
    out = 0.0 if work.drained else work.gradient_bytes
    bus = UPDATE_BUS_BYTES * shares.cpu + STREAM_BUS_BYTES * (np.asarray(shares.streamed) + shares.nvme)
    rows = {
        "processors": shares.cpu * parameters / rates.update_per_s,
        "device": (np.asarray(shares.streamed) + shares.resident) * work.device_s,
        "link_in": (STATE_BYTES * np.asarray(shares.streamed) + work.weight_bytes * np.asarray(shares.cpu))
        * parameters
        / rates.link_bytes_per_s,
        "link_out": (STATE_BYTES * np.asarray(shares.streamed) + out * np.asarray(shares.cpu))
        * parameters
        / rates.link_bytes_per_s,
        "memory_bus": host.ranks * bus * parameters / rates.bus_bytes_per_s,
    }
    if host.nvme_bytes_per_s:
        rows["drives"] = 2 * STATE_BYTES * np.asarray(shares.nvme) * parameters / host.nvme_bytes_per_s
    return {name: np.asarray(seconds, dtype=float) for name, seconds in rows.items()}


def overlapped_s(work: OptimizerWork, host: Host, shares: Shares) -> FloatArray:
    """Give the seconds of a step whose streams and updates overlap."""
    rows = np.broadcast_arrays(*overlapped_rows_s(work, host, shares).values())
    return np.asarray(np.max(rows, axis=0))


def plain_s(work: OptimizerWork, host: Host, shares: Shares) -> FloatArray:
    """Give the seconds of a step that updates on the host, then casts and copies; the device updates beside it."""
    on_host = np.asarray(shares.cpu) * work.parameters
    rates = host.rates
    update = np.maximum(on_host / rates.update_per_s, UPDATE_BUS_BYTES * host.ranks * on_host / rates.bus_bytes_per_s)
    back = np.maximum(
        work.weight_bytes * on_host / rates.link_bytes_per_s,
        CAST_BUS_BYTES * host.ranks * on_host / rates.bus_bytes_per_s,
    )
    resident = np.asarray(shares.resident) * work.device_s
    rows = [update + back, resident]
    if host.nvme_bytes_per_s:
        drives = 2 * STATE_BYTES * np.asarray(shares.nvme) * work.parameters / host.nvme_bytes_per_s
        rows.append(drives)
    return np.asarray(np.max(np.broadcast_arrays(*rows), axis=0))
