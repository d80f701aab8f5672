"""What selective recomputation drops and repeats, module by module, and of how many layers full recomputation is.

A stack, or a case, names modules; each drops bytes that a layer would keep and repeats a part of its forward pass:

    attention_core        scores, softmax, dropout                      attention (arXiv 2205.05198, section 5)
    norms, activation     the outputs of norms, of the activation       half the elementwise traffic each
    latent_up_projection  queries, keys and values of latent attention  the products from the compressed ranks
    mlp, experts,         all that an MLP, the routed experts, the      their products
    shared_experts        shared ones keep
    every_other_product   what every_other_product.py says              products, gathers, all elementwise traffic

Modules as in Megatron-Core's `recompute_modules`; the last is TorchTitan's selective checkpointing. The core of linear
attention keeps nothing, so that it isn't repeated for what it would free.

Full recomputation repeats a layer's forward pass. PyTorch's torch.utils.checkpoint (not its older form, which enters
autograd again) stops where the tensor that was saved last is back. That is the input of a part's last product, which
isn't repeated then, nor is the sum over tensor ranks behind it: of a dense layer the MLP's last product, and where
attention is a part of its own that one's last too (`spared_products`).
"""

from collections.abc import Mapping

import numpy as np

from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.every_other_product import repeated_flop_share, repeated_message_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import attention_products, expert_rows, mlp_products, tokens_of
from meshwright.costmodels.layout import RECOMPUTES, FloatArray, LayoutTable, Recompute
from meshwright.costmodels.schedule.codes import chunks_a_stage
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.tensor_messages import TensorMessages
from meshwright.costmodels.transformer import Attention, Layer, Mlp

FULL = RECOMPUTES.index(Recompute.FULL)
SELECTIVE = RECOMPUTES.index(Recompute.SELECTIVE)


def fully_repeated_shares(
    job: Job, layer: Layer, layouts: LayoutTable, sent: TensorMessages
) -> Mapping[str, FloatArray]:
    """Give the share of a forward pass that full recomputation repeats, where it isn't all of it, [layouts]."""
    spared = job.stack.spared_products
    if spared == 0 or not isinstance(layer.mlp, Mlp):
        return {}
    attention, mlp = attention_products(job, layer.attention, layouts), mlp_products(job, layer.mlp, layouts)
    last = (mlp[-1], attention[-1])[:spared]
    total_flop = np.asarray(sum(product.flop for product in attention + mlp))
    return {
        "matmul": 1.0 - np.asarray(sum(product.flop for product in last)) / total_flop,
        "tensor_communication": 1.0 - sent.share(0.5 * spared * sent.summed_s),
    }


def repeated_shares(job: Job, layer: Layer, layouts: LayoutTable, sent: TensorMessages) -> Mapping[str, FloatArray]:
    """Give the share of a forward pass that selective recomputation repeats, by what the time goes to, [layouts]."""
    modules = job.stack.selective_recompute
    ones = np.ones(len(layouts))
    attention = ones * (RecomputedModule.ATTENTION_CORE in modules and layer.attention.linear is None)
    if RecomputedModule.EVERY_OTHER_PRODUCT in modules:
        return {
            "attention": attention,
            "elementwise": ones,
            "matmul": repeated_flop_share(job, layer, layouts),
            "tensor_communication": sent.share(repeated_message_s(layouts, sent)),
        }
    products = attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)
    total_flop = np.asarray(sum(product.flop for product in products))
    halves = (RecomputedModule.NORMS in modules) + (RecomputedModule.ACTIVATION in modules)
    return {
        "attention": attention,
        "elementwise": 0.5 * halves * ones,
        "matmul": _repeated_flop(job, layer, layouts) / total_flop,
        "expert_communication": ones * (RecomputedModule.EXPERTS in modules),
    }


def recomputed_share(layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give by what the recomputed layers that a stage table counts are multiplied, [layouts, stages].

    Where a layout gives a number of layers of every model chunk, full recomputation is of those, the same share of each
    kind, and the others keep everything.
    """
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    chosen = (layouts.recompute_layers * chunks_a_stage(layouts))[:, np.newaxis]
    partial = ((layouts.recompute == FULL) & (layouts.recompute_layers > 0))[:, np.newaxis]
    return np.where(partial, np.minimum(chosen / layers, 1.0), 1.0)


def _repeated_flop(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    modules, mlp = job.stack.selective_recompute, layer.mlp
    tokens = tokens_of(job, layouts).computed
    per_width = 2.0 * (3 if mlp.gated else 2) * job.model.hidden
    repeated = np.zeros(len(layouts))
    if RecomputedModule.LATENT_UP_PROJECTION in modules:
        repeated = repeated + _up_projection_flop(layer.attention, tokens) / layouts.tensor_parallel
    if isinstance(mlp, Mlp):
        if RecomputedModule.MLP in modules:
            repeated = repeated + per_width * tokens * mlp.ffn_hidden / layouts.tensor_parallel
        return repeated
    if RecomputedModule.EXPERTS in modules:
        rows = expert_rows(job, mlp, layouts)
        repeated = repeated + per_width * rows * mlp.ffn_hidden / layouts.expert_tensor_parallel
    if RecomputedModule.EXPERTS in modules or RecomputedModule.SHARED_EXPERTS in modules:
        repeated = repeated + per_width * tokens * mlp.shared_ffn_hidden / layouts.tensor_parallel
    return repeated


def _up_projection_flop(attention: Attention, tokens: FloatArray) -> FloatArray:
    """Count the operations of latent attention's products from the compressed ranks, over all tensor ranks."""
    latent = attention.latent
    if latent is None:
        return np.zeros_like(tokens)
    queries = attention.head_dim * (latent.query_rank or 0)
    keys_values = (latent.nope_head_dim + latent.value_head_dim) * latent.kv_rank
    return 2.0 * tokens * attention.heads * (queries + keys_values)
