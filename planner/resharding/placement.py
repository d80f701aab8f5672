"""Where the ranks of a plan are: which stage holds a tensor, which slab of it a rank, over how many ranks it's sharded.

A stage's ranks are those of the first stage, each `stage_stride` times the stage's number further; what is said here of
ranks is of those of the first stage.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import IntArray, Layout, LayoutTable
from meshwright.costmodels.sharding import Sharding, dense_sharding, expert_sharding
from meshwright.planner.job_inputs import job_of
from meshwright.planner.plan_schema import Plan
from meshwright.planner.ranks import mesh_axes
from meshwright.planner.resharding.states import State, states_of
from meshwright.planner.resharding.tensors import End, ModelTensor

Stages = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A plan as tensors see it.

    ranks: those of the first stage, ascending; coordinates: of each, by axis. dense, expert: over how many replicas the
    states are sharded. by_rows: shards are whole rows of a tensor, as FSDP2 cuts them, else any number of elements.
    states: by name. layer_stages, end_stages: the stages that hold a layer, and an end of the model.
    """

    layout: Layout
    ranks: IntArray
    coordinates: dict[str, IntArray]
    stage_stride: int
    dense: Sharding
    expert: Sharding
    by_rows: bool
    states: tuple[State, ...]
    layer_stages: dict[int, Stages]
    end_stages: dict[End, Stages]

    def stages_of(self, tensor: ModelTensor) -> Stages:
        """Give the stages that hold a tensor, whole or a slab of it."""
        if isinstance(tensor.place, End):
            return self.end_stages[tensor.place]
        return self.layer_stages[tensor.place]

    def shards(self, tensor: ModelTensor, state: State) -> int:
        """Give over how many replicas a state of a tensor is sharded."""
        sharding = self.expert if tensor.expert else self.dense
        return int(getattr(sharding, state.sharded_as)[0, 0])


def placement_of(plan: Plan, *, gradients: bool = True) -> Placement:
    """Give the placement of a plan, of all states or, between two steps, without gradients."""
    layout = plan.layout.layout()
    job, table = job_of(plan.inputs, devices=layout.world_size), LayoutTable.of([layout])
    axes = mesh_axes(layout)
    everyone = np.arange(layout.world_size)
    coordinates = {name: everyone // axis.stride % axis.size for name, axis in axes.items()}
    first = np.flatnonzero(coordinates["pipeline"] == 0)
    layer_stages, end_stages = _held(plan)
    return Placement(
        layout=layout,
        ranks=first,
        coordinates={name: column[first] for name, column in coordinates.items()},
        stage_stride=axes["pipeline"].stride,
        dense=dense_sharding(job, table),
        expert=expert_sharding(job, table),
        by_rows=not job.stack.master_bytes,
        states=states_of(job, gradients=gradients),
        layer_stages=layer_stages,
        end_stages=end_stages,
    )


def _held(plan: Plan) -> tuple[dict[int, Stages], dict[End, Stages]]:
    layers: defaultdict[int, set[int]] = defaultdict(set)
    for stage in plan.stages:
        for chunk in stage.layers():
            for layer in chunk:
                layers[layer].add(stage.stage)
    embedding = {stage.stage for stage in plan.stages if stage.embedding}
    head = {stage.stage for stage in plan.stages if stage.head}
    ends = {
        End.EMBEDDING: embedding,
        End.HEAD: head,
        End.BOTH: embedding | head,
        End.LAST: layers[max(layers)],
    }
    return (
        {layer: tuple(sorted(stages)) for layer, stages in layers.items()},
        {end: tuple(sorted(stages)) for end, stages in ends.items()},
    )
