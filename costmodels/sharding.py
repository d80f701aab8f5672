"""Over how many ranks each part of the state is sharded, and the groups that this makes.

Of the ranks that hold the same parameters, each of four parts is sharded over so many that lie next to one another:

    optimizer states    zero_shard                      from ZeRO stage 1
    gradients           gradient_shard                  from stage 2: as they add up from micro-batch to micro-batch
    parameters          parameter_shard                 from stage 3: between the passes of a step
    parameters          backward_shard                  from stage 3: from a layer's forward to its backward pass

Each is a divisor of the one before (gradients and parameters of zero_shard), so that shards nest. All equal is ZeRO
(arXiv 1910.02054) where zero_shard is all ranks, and MiCS (arXiv 2205.00119) or hybrid FSDP where it's fewer. A smaller
backward_shard is the secondary partition of ZeRO++ (hpZ, arXiv 2306.10209, section 3.2), and FSDP2's
reshard_after_forward of a number. Parameters over the two dies of a card, gradients over the node and optimizer states
over all are the three levels that suit Frontier (arXiv 2501.04266). Parameters and gradients over 1 are held whole
from the first to the last micro-batch of a step, as FSDP2 does where gradient synchronisation is deferred.

Experts have fewer copies, further apart: they are sharded over those that lie within the same ranks.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.collectives import Group
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, IntArray, LayoutTable
from meshwright.costmodels.strides import stages_inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """The shards of some parameters, arrays of shape [layouts, 1].

    copies: ranks that hold the same parameters, `stride` apart.
    optimizer, gradients, parameters, backward: over how many of them each part is sharded; 1 where it isn't.
    """

    copies: IntArray
    stride: IntArray
    optimizer: IntArray
    gradients: IntArray
    parameters: IntArray
    backward: IntArray

    def between(self, inner: IntArray, outer: IntArray) -> Group:
        """Give the ranks that turn shards over `inner` ranks into shards over `outer`, or back."""
        return Group(size=np.maximum(outer // inner, 1), stride=self.stride * inner)


def data_group(layouts: LayoutTable) -> Group:
    """Give the ranks that hold the same dense parameters: data x context parallelism."""
    stride = layouts.tensor_parallel * stages_inside(layouts)
    return Group(size=layouts.data_parallel * layouts.context_parallel, stride=stride)


def expert_data_group(layouts: LayoutTable) -> Group:
    """Give the ranks that hold the same experts."""
    expert_ranks = layouts.expert_parallel * layouts.expert_tensor_parallel
    block = layouts.data_parallel * layouts.context_parallel * layouts.tensor_parallel
    return Group(size=np.maximum(block // expert_ranks, 1), stride=expert_ranks * stages_inside(layouts))


def dense_sharding(job: Job, layouts: LayoutTable) -> Sharding:
    """Give the shards of all parameters but the routed experts."""
    return _sharding(job, layouts, data_group(layouts))


def expert_sharding(job: Job, layouts: LayoutTable) -> Sharding:
    """Give the shards of routed experts."""
    return _sharding(job, layouts, expert_data_group(layouts))


def _sharding(job: Job, layouts: LayoutTable, group: Group) -> Sharding:
    """Cut a group by the layouts' shards, of which each spans so many ranks of the machine.

    Where the stack holds parameters and gradients whole in a pipeline, they aren't sharded there.
    """
    stage = layouts.zero_stage
    held = (layouts.pipeline_parallel > 1) & (not job.stack.reshard_in_pipeline)
    sharded = (stage >= 3) & ~held
    backward_shard = np.minimum(layouts.backward_shard, layouts.parameter_shard)
    return Sharding(
        copies=group.size[:, np.newaxis],
        stride=group.stride[:, np.newaxis],
        optimizer=_cut(layouts, group, layouts.zero_shard, where=stage >= 1),
        gradients=_cut(layouts, group, layouts.gradient_shard, where=(stage >= 2) & ~held),
        parameters=_cut(layouts, group, layouts.parameter_shard, where=sharded),
        backward=_cut(layouts, group, backward_shard, where=sharded),
    )


def _cut(layouts: LayoutTable, group: Group, shard: IntArray, *, where: BoolArray) -> IntArray:
    """Give how many members of the group lie within the ranks of several dense ones, [layouts, 1]; elsewhere 1."""
    within = np.clip(shard * data_group(layouts).stride // group.stride, 1, group.size)
    return np.where(where & (shard > 1), within, 1)[:, np.newaxis]
