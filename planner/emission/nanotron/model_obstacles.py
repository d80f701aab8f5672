"""What Nanotron's Qwen2 model doesn't have of a model."""

from collections.abc import Iterator

from meshwright.catalog.model_entry import ModelEntry, Norm, Positions
from meshwright.planner.emission.linear_attention import without_linear_attention
from meshwright.planner.emission.obstacle import Obstacle


def model_obstacles(entry: ModelEntry) -> Iterator[Obstacle]:
    """Give what it lacks; none of it can be done without."""
    lacks = {
        "positions": entry.positions is not Positions.ROTARY and f"has no {entry.positions} positions",
        "norm": entry.norm is not Norm.RMS_NORM and "has RMS norms only",
        "norms_per_layer": entry.norms_per_layer != 2 and "norms each layer twice",
        "embedding_norm": entry.embedding_norm and "has no norm behind the embedding",
        "final_norm": not entry.final_norm and "always norms behind the last layer",
        "gated_mlp": not entry.gated_mlp and "has gated MLPs only",
        "head_dim": entry.heads * entry.head_dim != entry.hidden and "has heads of hidden / heads only",
        "query_key_norm": entry.query_key_norm and "has no norm of queries and keys",
        "output_bias": (entry.output_bias or entry.mlp_bias) and "has biases of queries, keys and values only",
        "window_frequency": entry.window is not None and entry.window_frequency and "has the same window in all layers",
        "chunk": entry.chunk is not None and "has no attention within chunks of a sequence",
        "latent_attention": entry.latent_attention is not None and "has no latent attention",
        "mtp_layers": entry.mtp_layers and "predicts one token",
        **_of_experts(entry),
    }
    yield from without_linear_attention(entry)
    for name, feature in lacks.items():
        if feature:
            yield Obstacle(path=f"inputs.model.entry.{name}", feature=str(feature))


def _of_experts(entry: ModelEntry) -> dict[str, str | bool]:
    experts = entry.experts
    if experts is None:
        return {}
    ungated = experts.shared_ffn_hidden > 0 and not experts.shared_expert_gate
    return {
        "experts.shared_expert_gate": ungated and "always has a gate of shared experts",
        "experts.router_bias": experts.router_bias and "has no bias in the router",
        "experts.groups": experts.groups_per_token < experts.groups and "routes over all experts",
    }
