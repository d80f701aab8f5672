"""Operations that a model needs, whatever the layout: what MFU is a share of."""

from meshwright.costmodels.attention import core_flop
from meshwright.costmodels.job import Job
from meshwright.costmodels.parameters import layer_parameters
from meshwright.costmodels.transformer import Experts, Layer


def model_flop(job: Job) -> float:
    """Count the operations of one step's forward and backward pass, without recomputation.

    Six for each active parameter of a matrix and token, and the causal attention core three times (forward, and twice
    that backward).
    """
    model = job.model
    per_token = 6.0 * model.hidden * model.vocab * (1 + model.mtp_layers) + 12.0 * model.hidden**2 * model.mtp_layers
    core = 0.0
    for layer in (*model.layers, *(model.layers[-1],) * model.mtp_layers):
        count = layer_parameters(model, layer)
        router = layer.mlp.experts * model.hidden if isinstance(layer.mlp, Experts) else 0
        down = _latent_down_parameters(model.hidden, layer)
        per_token += 6.0 * (count.attention_sharded + count.mlp_sharded + count.active_experts + router + down)
        core += 3.0 * core_flop(job, layer.attention)
    return per_token * job.tokens_per_step + core * job.global_batch


def _latent_down_parameters(hidden: int, layer: Layer) -> int:
    latent = layer.attention.latent
    return hidden * ((latent.query_rank or 0) + latent.kv_rank + latent.rope_head_dim) if latent else 0
