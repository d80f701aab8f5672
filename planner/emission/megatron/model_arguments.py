"""What Megatron-LM is told of the model."""

from collections.abc import Iterator
from itertools import groupby

from meshwright.catalog.model_entry import ROTARY_BASE, ModelEntry, Norm, Positions
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.transformer import Experts, Transformer, transformer_of
from meshwright.planner.emission.linear_attention import without_linear_attention
from meshwright.planner.emission.megatron.arguments import Arguments, Value
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.plan_schema import Inputs

NORMS = {Norm.LAYER_NORM: "LayerNorm", Norm.RMS_NORM: "RMSNorm"}
POSITIONS = {Positions.LEARNED: "learned_absolute", Positions.ROTARY: "rope"}
# Megatron's --attention-dropout and --hidden-dropout where nothing is said.
DROPOUT = 0.1


def model_arguments(inputs: Inputs) -> Arguments:
    """Give the arguments for the model, of which `model_obstacles` knows nothing to say."""
    entry, model = inputs.model.entry, transformer_of(inputs.model.entry)
    return {
        **_dimensions(inputs),
        **_rotary(entry),
        **_switches(entry),
        **_dropout(entry, inputs.stack.entry),
        **_attention(entry, model),
        **_experts(entry, model),
        **({"mtp-num-layers": entry.mtp_layers} if entry.mtp_layers else {}),
    }


def model_obstacles(entry: ModelEntry) -> Iterator[Obstacle]:
    """Give what Megatron-LM has no words for in a model."""
    path = "inputs.model.entry"
    yield from without_linear_attention(entry)
    if entry.positions not in POSITIONS:
        yield Obstacle(path=f"{path}.positions", feature=f"has no {entry.positions} positions")
    if entry.norms_per_layer != 2:
        yield Obstacle(
            path=f"{path}.norms_per_layer", feature=f"norms each layer twice, not {entry.norms_per_layer} times"
        )
    if entry.embedding_norm:
        yield Obstacle(path=f"{path}.embedding_norm", feature="has no norm behind the embedding")
    if not entry.final_norm:
        yield Obstacle(path=f"{path}.final_norm", feature="always norms behind the last layer")
    if entry.chunk is not None:
        yield Obstacle(path=f"{path}.chunk", feature="has no attention within chunks of a sequence")
    if len({entry.output_bias, entry.mlp_bias}) > 1 or (entry.output_bias and not entry.qkv_bias):
        yield Obstacle(path=f"{path}.output_bias", feature="gives all matrices a bias, none, or only queries and keys")
    if entry.experts is not None and entry.experts.router_bias:
        yield Obstacle(path=f"{path}.experts.router_bias", feature="has no bias in the router")


def _dimensions(inputs: Inputs) -> dict[str, Value]:
    entry, sequence_length = inputs.model.entry, inputs.job.sequence_length
    return {
        "num-layers": entry.layers,
        "hidden-size": entry.hidden,
        "ffn-hidden-size": entry.ffn_hidden,
        "num-attention-heads": entry.heads,
        "seq-length": sequence_length,
        "max-position-embeddings": entry.max_positions or sequence_length,
        "vocab-size": entry.vocab,
        "make-vocab-size-divisible-by": 128,
        "position-embedding-type": POSITIONS[entry.positions],
        "normalization": NORMS[entry.norm],
    }


def _rotary(entry: ModelEntry) -> Arguments:
    told = entry.positions is Positions.ROTARY and entry.rotary_base != ROTARY_BASE
    return {"rotary-base": entry.rotary_base} if told else {}


def _switches(entry: ModelEntry) -> dict[str, Value]:
    switches = {
        "swiglu": entry.gated_mlp,
        "untie-embeddings-and-output-weights": not entry.tied_embeddings,
        "disable-bias-linear": not entry.output_bias,
        "add-qkv-bias": entry.qkv_bias and not entry.output_bias,
        # Of latent attention, the norms of what queries, keys and values are compressed into.
        "qk-layernorm": entry.query_key_norm or entry.latent_attention is not None,
    }
    return {name: True for name, wanted in switches.items() if wanted}


def _dropout(entry: ModelEntry, stack: StackEntry) -> dict[str, Value]:
    share = DROPOUT if stack.dropout and entry.trains_with_dropout else 0.0
    return {"attention-dropout": share, "hidden-dropout": share}


def _attention(entry: ModelEntry, model: Transformer) -> dict[str, Value]:
    latent = entry.latent_attention
    if latent is not None:
        ranks: dict[str, Value] = {} if latent.query_rank is None else {"q-lora-rank": latent.query_rank}
        return {
            "multi-latent-attention": True,
            **ranks,
            "kv-lora-rank": latent.kv_rank,
            "qk-head-dim": latent.nope_head_dim,
            "qk-pos-emb-head-dim": latent.rope_head_dim,
            "v-head-dim": latent.value_head_dim,
        }
    grouped: dict[str, Value] = {"group-query-attention": True, "num-query-groups": entry.kv_heads}
    own = grouped if entry.kv_heads < entry.heads else {}
    return {"kv-channels": entry.head_dim, **own, **_window(model)}


def _window(model: Transformer) -> dict[str, Value]:
    windowed = [layer.attention.window is not None for layer in model.layers]
    if not any(windowed):
        return {}
    window = next(layer.attention.window for layer in model.layers if layer.attention.window is not None)
    # The window counts the tokens before a query, ours the query too.
    return {"window-size": f"({window - 1},0)", "window-attn-skip-freq": pattern(windowed)}


def _experts(entry: ModelEntry, model: Transformer) -> dict[str, Value]:
    experts = entry.experts
    if experts is None:
        return {}
    mixtures = [isinstance(layer.mlp, Experts) for layer in model.layers]
    dense: dict[str, Value] = {} if all(mixtures) else {"moe-layer-freq": pattern(mixtures)}
    shared: dict[str, Value] = {}
    if experts.shared_ffn_hidden:
        shared = {"moe-shared-expert-intermediate-size": experts.shared_ffn_hidden}
        shared |= {"moe-shared-expert-gate": True} if experts.shared_expert_gate else {}
    grouped: dict[str, Value] = {}
    if experts.groups > 1:
        grouped = {"moe-router-num-groups": experts.groups, "moe-router-group-topk": experts.groups_per_token}
    return {
        "num-experts": experts.experts,
        "moe-router-topk": experts.top_k,
        "moe-ffn-hidden-size": experts.ffn_hidden,
        **grouped,
        **dense,
        **shared,
    }


def pattern(marks: list[bool]) -> str:
    """Give a mark a layer as Megatron's expression of lists: "([0]*3+[1]*58)"."""
    runs = [f"[{int(mark)}]*{len(list(run))}" for mark, run in groupby(marks)]
    return f"({'+'.join(runs)})"
