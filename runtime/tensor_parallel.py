"""Tensor and sequence parallelism of a chunk, as PyTorch's parallel styles say it."""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from meshwright.runtime.mixture import Mixture
from meshwright.runtime.model import Block, ModelChunk

Styles = dict[str, ParallelStyle]


def apply_tensor_parallel(chunk: ModelChunk, mesh: DeviceMesh, *, cut_tokens: bool) -> None:
    """Split a chunk's matrices over a mesh; cut_tokens: between them each rank has its own part of each sequence."""
    between: Placement = Shard(1) if cut_tokens else Replicate()
    styles: Styles = {}
    if chunk.embedding is not None:
        styles["embedding"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=between)
    if chunk.head is not None:
        styles |= _norms("head.norm", cut_tokens=cut_tokens)
        styles["head.output"] = ColwiseParallel(input_layouts=between, output_layouts=Replicate())
    for name, block in chunk.layers.items():
        styles |= {f"layers.{name}.{inner}": style for inner, style in _block(block, between, cut_tokens).items()}
    parallelize_module(chunk, mesh, styles)


def _block(block: Block, between: Placement, cut_tokens: bool) -> Styles:  # noqa: FBT001 - internal
    styles = _norms("attention_norm", cut_tokens=cut_tokens) | _norms("mlp_norm", cut_tokens=cut_tokens)
    styles |= _pair("attention", ("query", "key", "value"), "output", between)
    if not isinstance(block.mlp, Mixture):
        return styles | _pair("mlp", ("gate", "up"), "down", between)
    styles |= _norms("mlp.router", cut_tokens=cut_tokens)
    if block.mlp.shared is not None:
        styles |= _pair("mlp.shared", ("gate", "up"), "down", between)
    return styles


def _pair(module: str, first: tuple[str, ...], second: str, between: Placement) -> Styles:
    """Split the first matrices by columns and the second by rows; their input is gathered once for all of the first."""
    whole = PrepareModuleInput(input_layouts=(between,), desired_input_layouts=(Replicate(),))
    columns = {f"{module}.{name}": ColwiseParallel() for name in first}
    return {module: whole, **columns, f"{module}.{second}": RowwiseParallel(output_layouts=between)}


def _norms(name: str, *, cut_tokens: bool) -> Styles:
    return {name: SequenceParallel(use_local_output=True)} if cut_tokens else {}
