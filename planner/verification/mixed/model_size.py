"""How many parameters a model's matrices have, counted from its entry: what is exchanged, and what a step computes.

With hidden size h, query width q, key and value width k, MLP width f and n matrices of it, a layer has
h (q + 2 k) + q h + n h f, and a mixture n h times the widths of the experts instead, beside a router of h an expert.
Models with latent or linear attention or multi-token prediction aren't counted.
"""

from dataclasses import dataclass

from meshwright.catalog.model_entry import ModelEntry

# Norms, biases and positions are less than this share of a model of some size.
BESIDE_MATRICES = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Parameters of matrices with embedding and head; those that one token meets; FLOP of a token's attention at most.

    That is in both directions, of a sequence that every token sees whole.
    """

    parameters: int
    active: int
    attention_flop: float


def model_size(entry: ModelEntry, *, sequence_length: int) -> ModelSize | None:
    """Count a model; None of one that isn't counted."""
    if entry.latent_attention is not None or entry.linear_attention is not None or entry.mtp_layers:
        return None
    hidden, width = entry.hidden, entry.heads * entry.head_dim
    attention = hidden * (width + 2 * entry.kv_heads * entry.head_dim) + width * hidden
    each = (3 if entry.gated_mlp else 2) * hidden
    dense, experts = each * entry.ffn_hidden, entry.experts
    parameters = active = entry.vocab * hidden
    parameters += 0 if entry.tied_embeddings else entry.vocab * hidden
    for layer in range(entry.layers):
        held = met = dense
        behind = -1 if experts is None else layer - experts.dense_layers
        if experts is not None and behind >= 0 and behind % experts.layer_frequency == 0:
            routed, shared = each * experts.ffn_hidden, each * experts.shared_ffn_hidden
            held = experts.experts * (routed + hidden) + shared
            met = experts.top_k * routed + experts.experts * hidden + shared
        parameters += attention + held
        active += attention + met
    return ModelSize(parameters=parameters, active=active, attention_flop=12.0 * entry.layers * width * sequence_length)
