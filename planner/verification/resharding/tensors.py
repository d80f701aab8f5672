"""All tensors of a model by name, with their shapes, and the states of each, as a model's and a job's entries say."""

from collections.abc import Iterator

from meshwright.catalog.model_entry import ModelEntry, Norm, Positions
from meshwright.catalog.precision import Precision
from meshwright.planner.plan_schema import Plan

Tensor = tuple[str, tuple[int, ...]]

# Bytes of fp32, in which optimizers keep what they keep (arXiv 1710.03740).
WHOLE_BYTES = 4


def states_of(plan: Plan, *, gradients: bool) -> dict[str, int]:
    """Give the bytes of an element of each state of a plan's tensors (arXiv 1910.02054, section 3.1)."""
    stack, precision = plan.inputs.stack.entry, plan.inputs.job.precision
    moments = dict.fromkeys(("momentum", "variance"), WHOLE_BYTES)
    if precision is Precision.FP32:
        return {"parameter": WHOLE_BYTES} | ({"gradient": WHOLE_BYTES} if gradients else {}) | moments
    found = {"parameter": 2 if stack.master_bytes else WHOLE_BYTES}
    if gradients:
        found["gradient"] = stack.fp16_gradient_bytes if precision is Precision.FP16 else stack.gradient_bytes
    if stack.master_bytes:
        found["master"] = stack.master_bytes
    return found | moments


def tensors_of(entry: ModelEntry) -> dict[str, tuple[int, ...]]:
    """Give the shape of each tensor of a model by its name, matrices as [outputs, inputs]."""
    found: list[Tensor] = [("embedding.weight", (entry.vocab, entry.hidden))]
    if entry.positions is Positions.LEARNED:
        found.append(("embedding.positions", (entry.max_positions, entry.hidden)))
    if entry.embedding_norm:
        found += _norm(entry, "embedding.norm", entry.hidden)
    for number in range(entry.layers):
        found += _layer(entry, number, f"layers.{number}")
    for number in range(entry.mtp_layers):
        found.append((f"mtp.{number}.projection.weight", (entry.hidden, 2 * entry.hidden)))
        for name in ("hidden_norm", "embedding_norm", "head_norm"):
            found += _norm(entry, f"mtp.{number}.{name}", entry.hidden)
        found += _layer(entry, entry.layers - 1, f"mtp.{number}")
    if entry.final_norm:
        found += _norm(entry, "head.norm", entry.hidden)
    if not entry.tied_embeddings:
        found.append(("head.output.weight", (entry.vocab, entry.hidden)))
    return dict(found)


def _norm(entry: ModelEntry, name: str, width: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (width,)
    if entry.norm is Norm.LAYER_NORM:
        yield f"{name}.bias", (width,)


def _linear(name: str, outputs: int, inputs: int, *, bias: bool) -> Iterator[Tensor]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _layer(entry: ModelEntry, number: int, name: str) -> Iterator[Tensor]:
    norms = ["attention_norm", "mlp_norm", "norm_2", "norm_3"]
    for norm in norms[: entry.norms_per_layer]:
        yield from _norm(entry, f"{name}.{norm}", entry.hidden)
    linear = entry.linear_attention
    linearly = linear is not None and (linear.frequency == 0 or (number + 1) % linear.frequency > 0)
    if entry.latent_attention is not None and not linearly:
        yield from _latent(entry, f"{name}.attention")
    else:
        yield from _attention(entry, f"{name}.attention", linearly=linearly)
    behind = -1 if entry.experts is None else number - entry.experts.dense_layers
    if entry.experts is not None and behind >= 0 and behind % entry.experts.layer_frequency == 0:
        yield from _mixture(entry, f"{name}.mlp")
    else:
        yield from _mlp(entry, f"{name}.mlp", entry.ffn_hidden, bias=entry.mlp_bias)


def _attention(entry: ModelEntry, name: str, *, linearly: bool) -> Iterator[Tensor]:
    width = entry.heads * entry.head_dim
    shared = width if linearly else entry.kv_heads * entry.head_dim
    for part, outputs in (("query", width), ("key", shared), ("value", shared)):
        yield from _linear(f"{name}.{part}", outputs, entry.hidden, bias=entry.qkv_bias)
    for part in ("query_norm", "key_norm") if entry.query_key_norm else ():
        yield from _norm(entry, f"{name}.{part}", entry.head_dim)
    if linearly:
        yield from _norm(entry, f"{name}.norm", width)
        if entry.linear_attention is not None and entry.linear_attention.gated:
            yield f"{name}.gate.weight", (width, entry.hidden)
    yield from _linear(f"{name}.output", entry.hidden, width, bias=entry.output_bias)


def _latent(entry: ModelEntry, name: str) -> Iterator[Tensor]:
    latent = entry.latent_attention
    if latent is None:
        return
    downs = [("query", latent.query_rank, 0)] if latent.query_rank else []
    for part, rank, beside in [*downs, ("key_value", latent.kv_rank, latent.rope_head_dim)]:
        yield from _linear(f"{name}.{part}_down", rank + beside, entry.hidden, bias=entry.qkv_bias)
        yield from _norm(entry, f"{name}.{part}_norm", rank)
    query, both = latent.nope_head_dim + latent.rope_head_dim, latent.nope_head_dim + latent.value_head_dim
    yield f"{name}.query_up.weight", (entry.heads * query, latent.query_rank or entry.hidden)
    yield f"{name}.key_value_up.weight", (entry.heads * both, latent.kv_rank)
    yield from _linear(f"{name}.output", entry.hidden, entry.heads * latent.value_head_dim, bias=entry.output_bias)


def _mixture(entry: ModelEntry, name: str) -> Iterator[Tensor]:
    experts = entry.experts
    if experts is None:
        return
    yield from _linear(f"{name}.router", experts.experts, entry.hidden, bias=experts.router_bias)
    for part in ("gate", "up") if entry.gated_mlp else ("up",):
        yield f"{name}.experts.{part}", (experts.experts, experts.ffn_hidden, entry.hidden)
    yield f"{name}.experts.down", (experts.experts, entry.hidden, experts.ffn_hidden)
    if experts.shared_ffn_hidden:
        yield from _mlp(entry, f"{name}.shared", experts.shared_ffn_hidden, bias=False)
    if experts.shared_expert_gate:
        yield f"{name}.shared_gate.weight", (1, entry.hidden)


def _mlp(entry: ModelEntry, name: str, width: int, *, bias: bool) -> Iterator[Tensor]:
    for part in ("gate", "up") if entry.gated_mlp else ("up",):
        yield from _linear(f"{name}.{part}", width, entry.hidden, bias=bias)
    yield from _linear(f"{name}.down", entry.hidden, width, bias=bias)
