"""The schema of `catalog/stacks/*.yaml`: what a training framework does, as far as time and memory can tell."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from meshwright.catalog.entry import Count, Entry, Fraction, Name, Share, Source
from meshwright.catalog.quantity import Seconds
from meshwright.catalog.schedule import Schedule


class SelectiveRecompute(StrEnum):
    """What "selective" recomputation computes again.

    attention_core: scores, softmax and weighted values (Korthikanti et al. 2022, arXiv 2205.05198, section 5).
    every_other_product: all but the attention and every second matrix product (TorchTitan's selective checkpointing).
    norms_and_activation: the norms' and the activation's outputs (Megatron-Core's layernorm and moe_act modules).
    """

    ATTENTION_CORE = "attention_core"
    EVERY_OTHER_PRODUCT = "every_other_product"
    NORMS_AND_ACTIVATION = "norms_and_activation"


class Axis(StrEnum):
    """A parallelism that not every stack has; all have data parallelism."""

    TENSOR = "tensor"
    SEQUENCE = "sequence"
    CONTEXT = "context"
    PIPELINE = "pipeline"
    EXPERT = "expert"


class Partition(StrEnum):
    """Over which of the ranks that hold the same parameters ZeRO-3 shards what.

    uniform: everything over all of them.
    hybrid: everything over those of a node, with a copy in each node (hybrid FSDP; MiCS, arXiv 2205.00119).
    secondary: everything over all, and from forward to backward pass parameters over those of a node (hpZ of ZeRO++,
    arXiv 2306.10209; FSDP2's reshard_after_forward of a number).
    hierarchical: parameters over the innermost tier, gradients over a node, optimizer states over all (arXiv
    2501.04266).
    """

    UNIFORM = "uniform"
    HYBRID = "hybrid"
    SECONDARY = "secondary"
    HIERARCHICAL = "hierarchical"


class StackEntry(Entry):
    """One software stack: its switches, and a handful of constants.

    frameworks: how published measurements call it; the longest prefix decides.
    axes, schedules: the parallelisms and pipeline schedules that it runs; the search keeps to them.
    fused_attention: attention keeps no score matrix (flash attention).
    attention_share: rate of its fused attention kernels over the best ones for the device, by their generation.
    fused_elementwise: bias, activation, dropout and residual in as few passes as possible.
    fused_accumulation: weight gradients are added up by the products that make them, without a copy of their own.
    deterministic: sums are added up in a fixed order, so that two runs give the same bits.
    selective_recompute: what its selective recomputation is.
    fused_loss: the loss goes over the logits once each way, instead of once an operation.
    logits_bytes: bytes held for each logit when the loss turns back: the 16-bit logits, and fp32 copies of them.
    dropout: attention and hidden dropout are on.
    gradient_bytes: bytes of one accumulated gradient; 2 where the backward pass leaves 16-bit gradients.
    keeps_narrow_gradients: where gradients are accumulated in fp32, their 16-bit form is held for the whole step too.
    reduce_bytes: bytes of one gradient element on the wire.
    gather_bytes: bytes of one parameter on the wire where it's gathered; 1 where ZeRO++ quantises them (qwZ).
    quantised_reduction: gradients are reduced to shards as 4-bit values, by all-to-alls (qgZ of ZeRO++).
    master_weights: fp32 master copy beside 16-bit parameters (else the parameters themselves are fp32 shards).
    overlap_gradients, overlap_parameters, overlap_tensor, overlap_pipeline: which communication is started beside
    compute.
    deduplicated_dispatch: a token that several experts of one node want is sent to that node once (DeepEP).
    split_messages: tensor ranks send a share each of what goes to the next stage, and gather it there.
    partitions: the ways of its ZeRO-3 to shard; the search keeps to them.
    reshard_in_pipeline: ZeRO-3 gathers parameters for each micro-batch of a pipeline again, instead of once a step.
    defers_synchronisation: where it fits, ZeRO-3 keeps parameters gathered and gradients whole from micro-batch to
    micro-batch without a pipeline too (NeMo AutoModel); a layout says so by parameter and gradient shards of 1.
    gather_efficiency: share of the collectives' bandwidth that ZeRO-3's gathers and reductions reach.
    gathers_per_layer: messages into which ZeRO-3 cuts a layer.
    layer_launch: time the host needs to launch one layer's forward pass; the backward pass of it takes as long again.
    expert_launch: what each local expert adds to that: its two products, and what lies between.
    collective_launch: the same for one collective.
    step_overhead: host time of a step outside the layers (data, logging, gradient scaler).
    allocator_slack: reserved over allocated memory, less one.
    """

    name: Name
    source: Source
    frameworks: tuple[Name, ...] = ()
    axes: tuple[Axis, ...]
    schedules: tuple[Schedule, ...]
    fused_attention: bool
    attention_share: Fraction
    fused_elementwise: bool
    fused_accumulation: bool
    deterministic: bool
    selective_recompute: SelectiveRecompute
    fused_loss: bool
    logits_bytes: Annotated[int, Field(ge=2, le=32)]
    dropout: bool
    gradient_bytes: Annotated[int, Field(ge=2, le=4)]
    keeps_narrow_gradients: bool
    reduce_bytes: Annotated[int, Field(ge=2, le=4)]
    gather_bytes: Annotated[int, Field(ge=1, le=2)]
    quantised_reduction: bool
    master_weights: bool
    overlap_gradients: bool
    overlap_parameters: bool
    overlap_tensor: bool
    overlap_pipeline: bool
    deduplicated_dispatch: bool
    split_messages: bool
    partitions: Annotated[tuple[Partition, ...], Field(min_length=1)]
    reshard_in_pipeline: bool
    defers_synchronisation: bool
    gather_efficiency: Fraction
    gathers_per_layer: Count
    layer_launch: Seconds
    expert_launch: Seconds
    collective_launch: Seconds
    step_overhead: Seconds
    allocator_slack: Share
