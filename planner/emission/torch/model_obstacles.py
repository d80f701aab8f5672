"""What the reference launcher can't run of a model: it builds models of Llama's kind, dense or with experts."""

from collections.abc import Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.model_entry import Norm, Positions
from meshwright.costmodels.transformer import Attention, Experts, Layer, Mlp, Transformer
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.ledger.workload import Workload

NORMS_A_LAYER = 2


def model_obstacles(workload: Workload) -> Iterator[Obstacle]:
    """Give what the launcher can't build of a model, and what of it the layout's degrees don't divide."""
    layers = workload.model.layer_kinds
    features = [*_whole(workload.model), *(each for layer in layers for each in _layer(layer, workload))]
    for feature in dict.fromkeys(features):
        yield Obstacle(path="inputs.model", feature=f"has no {feature}")
    sizes = [*_sizes(workload), *(each for layer in layers for each in _layer_sizes(layer, workload))]
    for name, number, parts, what in dict.fromkeys(sizes):
        if number % parts:
            yield Obstacle(path=f"layout.{name}", feature=f"can't share {number} {what} evenly over {parts} devices")
    if workload.model.has_experts and workload.layout.tensor_parallel > 1 and not workload.layout.sequence_parallel:
        yield Obstacle(
            path="layout.sequence_parallel",
            feature="trains experts under tensor parallelism only with sequence parallelism",
            instead=({"sequence_parallel": True},),
        )


def _whole(model: Transformer) -> Iterator[str]:
    if model.norm is not Norm.RMS_NORM or not model.final_norm or model.embedding_norm:
        yield "norms but RMS norms of each layer and before the head"
    if model.positions is not Positions.ROTARY:
        yield f"{model.positions} positions"
    if model.tied_embeddings:
        yield "head that is the embedding"
    if model.mtp_layers:
        yield "multi-token prediction"


def _layer(layer: Layer, workload: Workload) -> Iterator[str]:
    if layer.norms != NORMS_A_LAYER:
        yield f"layers with {layer.norms} norms"
    yield from _attention(layer.attention, workload.sequence_length)
    if not layer.mlp.gated:
        yield "MLPs without a gate"
    if isinstance(layer.mlp, Mlp) and layer.mlp.bias:
        yield "biases"
    if isinstance(layer.mlp, Experts) and (layer.mlp.router_bias or layer.mlp.shared_gate):
        yield "routers with a bias, or gated shared experts"


def _attention(attention: Attention, sequence_length: int) -> Iterator[str]:
    if attention.latent is not None:
        yield "latent attention"
    if attention.linear is not None:
        yield "linear attention"
    if (attention.window or attention.chunk or sequence_length) < sequence_length:
        yield "attention within a window"
    if attention.qkv_bias or attention.output_bias:
        yield "biases"
    if attention.query_key_norm:
        yield "norms of queries and keys"


def _sizes(workload: Workload) -> Iterator[tuple[str, int, int, str]]:
    layout = workload.layout
    parts = layout.context_parallel * (layout.tensor_parallel if layout.sequence_parallel else 1)
    yield "context_parallel", workload.sequence_length, parts, "tokens of a sequence"
    yield "tensor_parallel", workload.model.vocab, layout.tensor_parallel, "words of the vocabulary"


def _layer_sizes(layer: Layer, workload: Workload) -> Iterator[tuple[str, int, int, str]]:
    layout, mlp = workload.layout, layer.mlp
    exchanged = layout.context_parallel if layout.context_method is ContextMethod.ULYSSES else 1
    name = "tensor_parallel" if exchanged == 1 else "context_parallel"
    yield name, layer.attention.heads, layout.tensor_parallel * exchanged, "heads"
    yield name, layer.attention.kv_heads, layout.tensor_parallel * exchanged, "key and value heads"
    width = mlp.shared_ffn_hidden if isinstance(mlp, Experts) else mlp.ffn_hidden
    yield "tensor_parallel", width, layout.tensor_parallel, "channels of an MLP"
    if isinstance(mlp, Experts):
        yield "expert_parallel", mlp.experts, layout.expert_parallel, "experts"
