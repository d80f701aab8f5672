"""What one rank of a plan's world holds at its peak, by PyTorch's tracker, in one process without any of that memory.

Tensors are fake ones that have a shape and no values, and so are the other ranks: collectives end at once. What runs is
the launcher's own training: its modules, FSDP2, schedule and optimizer.
"""

import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining._utils import InferenceMode
from torch.distributed.tensor import DTensor, Partial
from torch.distributed.tensor._ops._mask_buffer import MaskBuffer
from torch.testing._internal.distributed.fake_pg import FakeStore

from meshwright.planner.ledger.workload import Workload
from meshwright.planner.memory_oracle.held import Held
from meshwright.runtime.meshes import Meshes, meshes_of
from meshwright.runtime.parallelize import Part, parallel_parts
from meshwright.runtime.schedules import Pipelined
from meshwright.runtime.training import Training

# The tracker's names of what it counts.
CLASSES = {
    "parameters": ("Sharded Param", "Unsharded Param", "All Gather"),
    "gradients": ("Sharded Grad", "Unsharded Grad", "Reduce Scatter"),
    "optimizer": ("OptState",),
    "activations": ("Buffer", "Activation", "Temp", "Inputs"),
}
# The first one sets the stages up.
PIPELINED_STEPS = 2


def held_at_peaks(ranks: Sequence[tuple[Workload, int]]) -> tuple[Held, ...]:
    """Give the peak of each rank, each in a process of its own: PyTorch remembers worlds that are gone."""
    workers = min(len(ranks), os.cpu_count() or 1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(max_workers=workers, mp_context=context, max_tasks_per_child=1) as pool:
        return tuple(pool.map(held_at_peak, *zip(*ranks, strict=True)))


def held_at_peak(workload: Workload, rank: int) -> Held:
    """Give the peak of a step of one rank, one in which the optimizer has its moments from the start."""
    device = torch.device("cpu")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=workload.layout.world_size)
    try:
        with warnings.catch_warnings(), _masks_of_fixed_size():
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            meshes = meshes_of(workload, device.type)
            parts = parallel_parts(workload, workload.rank(rank), meshes)
            with FakeTensorMode(allow_non_fake_inputs=True):
                return _peak(workload, rank, meshes, parts, device)
    finally:
        dist.destroy_process_group()


def _peak(workload: Workload, rank: int, meshes: Meshes, parts: tuple[Part, ...], device: torch.device) -> Held:
    for part in parts:
        part.module.to_empty(device=device)
        _norms_of_one_kernel(part.module)
    training = Training(workload, workload.rank(rank), meshes, parts, device=device)
    if isinstance(training.passes, Pipelined):
        training.passes.schedule._warmup_p2p = _agreed
    tracker = _Tracker(_all(parts, meshes), training.optimizer)
    _make_moments(training)
    for number in range(PIPELINED_STEPS if isinstance(training.passes, Pipelined) else 1):
        tracker.reset_mod_stats()
        with tracker:
            training.differentiate(number)
            training.optimizer.step()
            training.optimizer.zero_grad()
    (found,) = tracker.get_tracker_snapshot("peak").values()
    by_name = {getattr(name, "value", name): size for name, size in found.items()}
    return Held(**{of: sum(by_name[name] for name in names) for of, names in CLASSES.items()})


def _make_moments(training: Training) -> None:
    for parameter in training.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.optimizer.step()
    training.optimizer.zero_grad()


def _all(parts: tuple[Part, ...], meshes: Meshes) -> nn.Module:
    """Give one module with all chunks, which the tracker asks for; nothing calls it."""
    chunks = nn.Module()
    chunks.parts = nn.ModuleList(part.module for part in parts)
    return fully_shard(chunks, mesh=meshes.shards(expert=False))


class _Tracker(FSDPMemTracker):
    """PyTorch's tracker, which takes gradients that add up over micro-batches for gradients too."""

    def _fsdp_param_group_post_backward(self, fsdp_mod: Any, original: Any) -> Any:  # noqa: ANN401 - PyTorch's own
        inner = super()._fsdp_param_group_post_backward(fsdp_mod, original)

        def counted(*args: object, **kwargs: object) -> None:
            inner(*args, **kwargs)
            group = fsdp_mod._get_fsdp_state()._fsdp_param_group
            added_up = [parameter.unsharded_accumulated_grad for parameter in group.fsdp_params]
            for gradient in (*added_up, group._partial_reduce_output):
                if gradient is not None:
                    self._update_and_maybe_create_winfos(gradient, self._ref_class.UNSHARDED_GRAD)

        return counted


def _agreed(stages: list[Any], *_: object) -> None:
    """Stand in for the vote of all stages on whether messages have known shapes: these have."""
    for stage in stages:
        stage._inference_mode = InferenceMode.STATIC


def _norms_of_one_kernel(module: nn.Module) -> None:
    """Have norms keep what the kernel of GPUs keeps: on processors they are several operators, with fp32 copies."""
    for each in module.modules():
        if isinstance(each, nn.RMSNorm):
            each.forward = lambda tokens, norm=each: _normed(tokens, norm.weight)


def _normed(tokens: Tensor, weight: Tensor) -> Tensor:
    if isinstance(tokens, DTensor):
        own = weight.to_local(grad_placements=[Partial()])
        normed = _Normed.apply(tokens.to_local(), own)
        return DTensor.from_local(normed, tokens.device_mesh, tokens.placements, run_check=False)
    return _Normed.apply(tokens, weight.to_local() if isinstance(weight, DTensor) else weight)


class _Normed(torch.autograd.Function):
    """An RMS norm's shapes: beside its inputs it keeps a factor a token, in fp32."""

    @staticmethod
    def forward(context: Any, tokens: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401 - PyTorch's own
        """Keep what the kernel does, and give a tensor of the tokens' shape."""
        factors = torch.empty(tokens.shape[:-1], dtype=torch.float32, device=tokens.device)
        context.save_for_backward(tokens, weight, factors)
        return torch.empty_like(tokens)

    @staticmethod
    def backward(context: Any, _: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Give tensors of the gradients' shapes."""
        tokens, weight, _factors = context.saved_tensors
        return torch.empty_like(tokens), torch.empty_like(weight)


@contextmanager
def _masks_of_fixed_size() -> Iterator[None]:
    """Zero what a split embedding lacks by its mask: by indices, as PyTorch does, is as large as values say."""

    def apply_mask(self: MaskBuffer, tensor: Tensor) -> None:
        mask = self.data if tensor.ndim == self.data.ndim else self.data.unsqueeze(-1)
        tensor.masked_fill_(mask, 0.0)

    original = MaskBuffer.apply_mask
    MaskBuffer.apply_mask = apply_mask
    try:
        yield
    finally:
        MaskBuffer.apply_mask = original
