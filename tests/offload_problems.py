"""Small problems of offloading, with numbers that can be followed by hand."""

import numpy as np

from meshwright.planner.offload.host import Host, UpdateRates
from meshwright.planner.offload.optimizer_law import OptimizerWork
from meshwright.planner.offload.problem import CLASSES, INPUT, DeviceMemory, Layers, Problem

GB = 1e9
MLP = [str(name) for name in CLASSES].index("mlp")


def small_problem(  # noqa: PLR0913 - one argument a number
    *,
    layers: int = 2,
    limit: float = 30 * GB,
    host_memory: float = 200 * GB,
    link: float = 25e9,
    bus: float = 200e9,
    update: float = 3e9,
    update_link: float = 10e9,
    parameters: float = 1e9,
    held: float = 1.0,
    input_bytes: float = 0.2 * GB,
    mlp_bytes: float = 1.0 * GB,
    again_s: float = 0.02,
    ranks: int = 2,
    passes: float = 1.0,
    streamable: bool = True,
) -> Problem:
    """Layers that keep an input and an MLP's activations, of 50 ms forward and 100 ms backward."""
    kept = np.zeros((layers, len(CLASSES)))
    kept[:, INPUT], kept[:, MLP] = input_bytes, mlp_bytes
    again = np.full((layers, len(CLASSES)), again_s)
    again[:, INPUT] = np.inf
    weights = np.full(layers, 2 * parameters / layers)
    return Problem(
        layers=Layers(
            forward_s=np.full(layers, 0.05),
            backward_s=np.full(layers, 0.1),
            whole_s=np.full(layers, 0.05),
            kept_bytes=kept,
            again_s=again,
            weight_bytes=weights,
            drain_bytes=weights,
        ),
        memory=DeviceMemory(
            limit=limit,
            states=0.1 * GB,
            gradients=2 * parameters,
            drained=2 * parameters * max(1 - 2 / layers, 0),
            optimizer=12 * parameters,
            step=0.0,
            beside=0.0,
            passes=0.0,
            loss=0.5 * GB,
            working=0.0,
            stream=36 * parameters / 200,
        ),
        host=Host(
            ranks=ranks,
            memory_bytes=host_memory,
            rates=UpdateRates(update_per_s=update, bus_bytes_per_s=bus, link_bytes_per_s=update_link),
            copy_bytes_per_s=link,
        ),
        optimizer=OptimizerWork(parameters=parameters, device_s=0.01),
        passes=passes,
        held=held,
        streamable=streamable,
    )
