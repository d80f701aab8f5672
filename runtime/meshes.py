"""A layout's process groups as PyTorch's device meshes, all cut from one mesh of the world so that they compose."""

from dataclasses import dataclass

from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from meshwright.planner.ledger.sharding import shards_of
from meshwright.planner.ledger.workload import Workload

ORDER = ("pipeline", "data", "context", "tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meshes:
    """The meshes of one rank, slowest axis first.

    plain: pipeline, data, context, tensor. dense, experts: how parameters are sharded: pipeline, copies, shards and
    the ranks that hold different parts of a matrix.
    """

    plain: DeviceMesh
    dense: DeviceMesh
    experts: DeviceMesh

    def group(self, axis: str) -> ProcessGroup:
        """Give the group of an axis of the plain mesh."""
        return self.plain[axis].get_group()

    def replicas(self, *, expert: bool) -> ProcessGroup:
        """Give the group of all that hold the same parameters, where they aren't sharded."""
        return (self.experts if expert else self.dense)["copies"].get_group()

    def shards(self, *, expert: bool) -> DeviceMesh:
        """Give what FSDP shards over: (copies, shards), or (shards,) where there is one copy."""
        mesh = self.experts if expert else self.dense
        return mesh["copies", "shards"] if mesh["copies"].size() > 1 else mesh["shards"]


def meshes_of(workload: Workload, device: str) -> Meshes:
    """Make the groups of a layout; each process of the world must call this."""
    layout = workload.layout
    world = init_device_mesh(device, (layout.world_size,), mesh_dim_names=("world",))
    replicas = layout.data_parallel * layout.context_parallel
    expert_replicas = replicas * layout.tensor_parallel // layout.expert_parallel
    stages, tensor = layout.pipeline_parallel, layout.tensor_parallel
    shards, expert_shards = shards_of(workload, expert=False), shards_of(workload, expert=True)
    plain = (stages, layout.data_parallel, layout.context_parallel, tensor)
    names = ("pipeline", "copies", "shards")
    return Meshes(
        plain=world._unflatten(0, plain, ORDER),
        dense=world._unflatten(0, (stages, replicas // shards, shards, tensor), (*names, "tensor")),
        experts=world._unflatten(
            0,
            (stages, expert_replicas // expert_shards, expert_shards, layout.expert_parallel),
            (*names, "expert"),
        ),
    )
