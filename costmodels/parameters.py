"""How many parameters a transformer has, and which of them tensor and expert parallelism split.

With hidden size h, MLP width f, query width q = heads * head_dim, key width k and value width v (of the kv_heads),
output width o (of the heads' values), vocabulary V, and n = 2, or 3 where the MLP is gated:

    attention   h (q + k + v) + o h                 for GPT-3, where q = k = v = o = h: 4 h^2
    MLP         n h f                               for GPT-3, where f = 4h: 8 h^2
    layer       attention + MLP + norms, biases     the 12 l h^2 of arXiv 2104.04473, section 5
    model       layers + V h (+ V h where the head isn't tied) + positions + final norm

Latent attention (arXiv 2405.04434, section 2.1) goes down to a rank r and up again to the heads' width w, h r + r w,
once for queries and once for keys and values together. Linear attention has a norm over the heads' values and, where
gated, another h o (arXiv 2501.08313, section 2.2). A mixture (arXiv 2101.03961, section 2) has a router, h * experts,
and one MLP an expert.

Tensor parallelism splits the first matrix of a pair by columns, with its bias, and the second by rows, whose bias is
whole on every rank, as are norms (arXiv 1909.08053, section 3).
"""

from dataclasses import dataclass

from meshwright.catalog.model_entry import Norm, Positions
from meshwright.costmodels.transformer import Attention, Experts, LatentAttention, Layer, Mlp, Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParameters:
    """Parameters of one layer by what splits them.

    attention_sharded: split by tensor parallelism: query, key, value, gate and output matrices, of latent attention
        those that go up from a rank, and the biases that are split with them.
    mlp_sharded: split by tensor parallelism: the matrices of a dense MLP or of the shared experts, and the first bias.
    experts: all routed experts' matrices, split by expert and expert tensor parallelism.
    active_experts: the share of `experts` that one token meets; not a part of the total.
    replicated: whole on every tensor rank: norms, biases of row-split matrices, router, gates of experts, and of latent
        attention the matrices that go down to a rank.
    """

    attention_sharded: int
    mlp_sharded: int
    experts: int
    active_experts: int
    replicated: int

    @property
    def total(self) -> int:
        """Parameters of the layer."""
        return self.attention_sharded + self.mlp_sharded + self.experts + self.replicated

    @property
    def active(self) -> int:
        """Parameters that one token meets: of the routed experts only `top_k`."""
        return self.total - self.experts + self.active_experts


def layer_parameters(model: Transformer, layer: Layer) -> LayerParameters:
    """Count one layer of `model`, which gives the hidden size and the kind of norm."""
    mlp_sharded, experts, active_experts, mlp_replicated = _mlp(model, layer.mlp)
    return LayerParameters(
        attention_sharded=_attention_sharded(model, layer.attention),
        mlp_sharded=mlp_sharded,
        experts=experts,
        active_experts=active_experts,
        replicated=_attention_replicated(model, layer.attention)
        + mlp_replicated
        + layer.norms * norm_parameters(model, model.hidden),
    )


def norm_parameters(model: Transformer, width: int) -> int:
    """Count one norm over `width` channels: a weight each, and a bias each for layer norm."""
    return width * (2 if model.norm is Norm.LAYER_NORM else 1)


def embedding_parameters(model: Transformer) -> int:
    """Count the word embedding, V h; split over the vocabulary by tensor parallelism."""
    return model.vocab * model.hidden


def position_parameters(model: Transformer) -> int:
    """Count the table of learned positions, 0 where positions are computed; whole on every tensor rank."""
    return model.max_positions * model.hidden if model.positions is Positions.LEARNED else 0


def embedding_norm_parameters(model: Transformer) -> int:
    """Count the norm behind the word embedding (BLOOM), 0 for most models."""
    return norm_parameters(model, model.hidden) if model.embedding_norm else 0


def final_norm_parameters(model: Transformer) -> int:
    """Count the norm before the head."""
    return norm_parameters(model, model.hidden) if model.final_norm else 0


def head_parameters(model: Transformer) -> int:
    """Count the output projection, V h, or 0 where it is the word embedding; split like that."""
    return 0 if model.tied_embeddings else model.vocab * model.hidden


def total_parameters(model: Transformer) -> int:
    """Count the model, without multi-token-prediction modules, as its owners publish it."""
    return _outside_layers(model) + sum(layer_parameters(model, layer).total for layer in model.layers)


def active_parameters(model: Transformer) -> int:
    """Count the parameters that one token meets, embedding and head included, as mixtures publish it."""
    return _outside_layers(model) + sum(layer_parameters(model, layer).active for layer in model.layers)


def mtp_parameters(model: Transformer) -> int:
    """Count all multi-token-prediction modules (arXiv 2412.19437, section 2.2), 0 without any.

    Each has a layer like the model's last, a 2h x h projection, a norm for each half of that and one before the head;
    embedding and head are the model's own.
    """
    own = 2 * model.hidden**2 + 3 * norm_parameters(model, model.hidden)
    return model.mtp_layers * (own + layer_parameters(model, model.layers[-1]).total)


def _outside_layers(model: Transformer) -> int:
    return (
        embedding_parameters(model)
        + position_parameters(model)
        + embedding_norm_parameters(model)
        + final_norm_parameters(model)
        + head_parameters(model)
    )


def _attention_sharded(model: Transformer, attention: Attention) -> int:
    query = attention.heads * attention.head_dim
    output = attention.heads * attention.value_head_dim * model.hidden
    if attention.latent is not None:
        latent = attention.latent
        key_value = latent.kv_rank * attention.heads * (latent.nope_head_dim + latent.value_head_dim)
        return (latent.query_rank or model.hidden) * query + key_value + output
    gate = output if attention.linear is not None and attention.linear.gated else 0
    columns = query + attention.kv_heads * (attention.head_dim + attention.value_head_dim)
    return (model.hidden + attention.qkv_bias) * columns + gate + output


def _attention_replicated(model: Transformer, attention: Attention) -> int:
    output_bias = model.hidden if attention.output_bias else 0
    if attention.latent is not None:
        return output_bias + _latent_replicated(model, attention.latent, biased=attention.qkv_bias)
    norms = 2 * norm_parameters(model, attention.head_dim) if attention.query_key_norm else 0
    if attention.linear is not None:
        norms += norm_parameters(model, attention.heads * attention.value_head_dim)
    return output_bias + norms


def _latent_replicated(model: Transformer, latent: LatentAttention, *, biased: bool) -> int:
    """Count the matrices down to the ranks and the norms there; the heads share one rotary part of the key."""
    query_rank = latent.query_rank or 0
    columns = query_rank + latent.kv_rank + latent.rope_head_dim
    return (model.hidden + biased) * columns + norm_parameters(model, query_rank + latent.kv_rank)


def _mlp(model: Transformer, mlp: Mlp | Experts) -> tuple[int, int, int, int]:
    """Count the parts that are sharded, in experts, in active experts, and replicated."""
    matrices = (3 if mlp.gated else 2) * model.hidden
    if isinstance(mlp, Mlp):
        first_bias = (2 if mlp.gated else 1) * mlp.ffn_hidden
        return (
            matrices * mlp.ffn_hidden + (first_bias if mlp.bias else 0),
            0,
            0,
            model.hidden if mlp.bias else 0,
        )
    expert = matrices * mlp.ffn_hidden
    router = (model.hidden + mlp.router_bias) * mlp.experts
    gate = model.hidden if mlp.shared_gate else 0
    return matrices * mlp.shared_ffn_hidden, mlp.experts * expert, mlp.top_k * expert, router + gate
