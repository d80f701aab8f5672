"""The schema of `catalog/stacks/*.yaml`: what a training framework does, as far as time and memory can tell."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.entry import Count, Entry, Fraction, Name, Share, Source, field_error
from meshwright.catalog.quantity import Bytes, Seconds
from meshwright.catalog.schedule import Schedule


class RecomputedModule(StrEnum):
    """A part of a layer that "selective" recomputation computes again; costmodels/recompute.py says what each is.

    Names follow Megatron-Core's `recompute_modules`; every_other_product is TorchTitan's selective checkpointing.
    """

    ATTENTION_CORE = "attention_core"
    NORMS = "norms"
    ACTIVATION = "activation"
    LATENT_UP_PROJECTION = "latent_up_projection"
    MLP = "mlp"
    EXPERTS = "experts"
    SHARED_EXPERTS = "shared_experts"
    EVERY_OTHER_PRODUCT = "every_other_product"


class LossKernels(StrEnum):
    """What the loss is made of: one kernel each way, PyTorch's log-softmax, or an operator after the other.

    The last is Megatron's vocabulary-parallel cross entropy (core/tensor_parallel/cross_entropy.py).
    """

    FUSED = "fused"
    SOFTMAX = "softmax"
    OPERATORS = "operators"


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


class Splits(StrEnum):
    """How layers may be cut into the chunks of a pipeline: sizes that differ by one at most, or any."""

    EVEN = "even"
    ANY = "any"


class RecomputeBy(StrEnum):
    """Of which layers whole layers can be recomputed.

    all: of all. chunk: of the first so many of each chunk, the same number everywhere. stage: each stage its own.
    """

    ALL = "all"
    CHUNK = "chunk"
    STAGE = "stage"


class StackEntry(Entry):
    """One software stack: its switches, and a handful of constants.

    frameworks: how published measurements call it; the longest prefix decides.
    axes, context_methods, schedules: the parallelisms, ways of context parallelism and pipeline schedules that it runs;
    the search keeps to them.
    repeats_key_values: under Ulysses, key heads that are fewer than its ranks are repeated for them.
    axis_orders: how its launcher can number ranks, of which tp-cp-dp-pp is one; the search keeps to them.
    splits, recompute_by: how it lets layers be cut into stages, and which be recomputed; the search keeps to them. What
    it recomputes selectively is recomputed in all layers, unless each stage has its own choice.
    fused_attention: attention keeps no score matrix (flash attention).
    fused_attention_on_request: only where a switch asks for it, as Megatron's own layers need --use-flash-attn.
    softmax_batch: where attention isn't fused, its softmax is for multiples of so many score matrices, else a chain of
    kernels takes its place.
    attention_share: rate of its fused attention kernels over the best ones of their generation.
    ampere_attention: those kernels were written for Ampere (FlashAttention 1 and 2), and run as such on later devices.
    statistics_bytes: what its fused attention keeps for each head and token to make scores again: a log-sum-exp, or
    maximum and sum, eight times in fp32 each (Ascend).
    fused_norm, fused_rotary, fused_activation, fused_residual: one kernel does a norm; the rotation of queries, keys;
    a gated activation; dropout and residual. Else PyTorch's operators do, one after another.
    compiled: a compiler has made the layer's code, which neither keeps nor makes again what nobody reads.
    permutation_bytes: what sorting tokens by expert and putting them back moves, forward, for each value of each
    (token, expert) pair: 8 where each is one kernel, which reads and writes 2 bytes; more where operators do it.
    fused_accumulation: weight gradients are added up by the products that make them, without a copy of their own.
    dummy_gradients: even so, autograd is handed an empty 16-bit tensor of the weight's shape.
    deterministic: sums are added up in a fixed order, so that two runs give the same bits.
    selective_recompute: the modules of a layer that its selective recomputation computes again.
    spared_products: how many products of a layer with a dense MLP full recomputation leaves out, since nothing that was
    saved follows them: the MLP's last one, and attention's last one where it is recomputed apart from the MLP.
    narrow_inputs: in formats below 16 bits, products keep their inputs and their weights, as they are and transposed,
    in that format (TransformerEngine), instead of making them again.
    dynamic_scaling: in 8 bits an operand is scaled by its own largest value, for which it is read once more, instead of
    by those of earlier steps (torchao's tensor-wise recipe, against TransformerEngine's delayed scaling).
    narrow_parameters: in those formats the parameters themselves are held in them (fp8-param-gather).
    loss: how the loss goes over the logits.
    logits_bytes: bytes held for each logit when the loss turns back: the 16-bit logits, and fp32 copies of them.
    dropout: attention and hidden dropout are on.
    gradient_bytes: bytes of one accumulated gradient; 2 where the backward pass leaves 16-bit gradients.
    fp16_gradient_bytes: the same where it trains in fp16, whose loss scaling makes up for the narrower sum.
    keeps_narrow_gradients: where gradients are accumulated in fp32, their 16-bit form is held for the whole step too.
    reduce_bytes: bytes of one gradient element on the wire.
    gather_bytes: bytes of one parameter on the wire where it's gathered; 1 where ZeRO++ quantises them (qwZ).
    quantised_reduction: gradients are reduced to shards as 4-bit values, by all-to-alls (qgZ of ZeRO++).
    master_bytes: what master weights add to 16-bit parameters: 4 for an fp32 copy, 2 for its lower half where the
    parameters are its upper half (MindSpeed's reuse-fp32-param), 0 where the parameters themselves are fp32 shards.
    overlap_gradients, overlap_parameters, overlap_tensor, overlap_pipeline: which communication is started beside
    compute.
    hides_tensor_sums: where it overlaps tensor parallelism, sums of gradients that several products add up to are
    hidden too, not only those that one product makes.
    narrow_tensor_gathers: in 8 bits, tensor ranks gather what they have cast already.
    deduplicated_dispatch: a token that several experts of one node want is sent to that node once (DeepEP).
    split_messages: tensor ranks send a share each of what goes to the next stage, and gather it there.
    vocabulary_parallel: it can share embedding and head over all stages of a pipeline (arXiv 2411.05288).
    partitions: the ways of its ZeRO-3 to shard; the search keeps to them.
    hybrid_stages: the other stages of its ZeRO that can shard over the ranks of a node, with a copy in each node: of
    stage 1 the optimizer's instances of Megatron-Core, of stage 2 hybrid FSDP that keeps parameters gathered.
    keeps_stage_outputs: a stage holds what it sent on until its backward pass (DeepSpeed's pipeline engine).
    micro_batch_a_stage: where nobody says otherwise a pipeline cuts a replica's share into as many micro-batches as it
    has stages.
    steps_together: stages wait for one another at the end of a step, as a global gradient norm makes them; else, under
    zero-bubble schedules, each starts the next step when it is done (arXiv 2401.10241, section 4).
    reshard_in_pipeline: ZeRO-3 gathers parameters for each micro-batch of a pipeline again, instead of once a step.
    defers_synchronisation: where it fits, ZeRO-3 keeps parameters gathered and gradients whole from micro-batch to
    micro-batch without a pipeline too (NeMo AutoModel); a layout says so by parameter and gradient shards of 1.
    packs_gradients, unpacks_parameters: gradients are copied into the buffer that is reduced, and parameters out of the
    one that they were gathered into, since they lie elsewhere.
    gather_efficiency: share of the collectives' bandwidth that ZeRO-3's gathers and reductions reach.
    gathers_per_layer: messages into which ZeRO-3 cuts a layer.
    layer_launch: time the host needs to launch one layer's forward pass; the backward pass of it takes as long again.
    expert_launch: what each local expert adds to that: its two products, and what lies between.
    collective_launch: the same for one collective.
    step_overhead: host time of a step outside the layers (data, logging, gradient scaler).
    loaded_kernels: device memory of the kernels that its libraries load: all of them before CUDA 11.7 learnt to load
    them when they are called.
    allocator_slack: reserved over allocated memory, less one.
    flat_optimizer: where ZeRO shards, the optimizer's step works on flat copies, too large for the blocks that
    activations leave to the allocator.
    reports_first_step: its log prints the peak of memory behind the first step, whose backward pass runs before the
    optimizer's moments are allocated (Megatron-LM of before 2025; its code of today waits for the second).
    """

    name: Name
    source: Source
    frameworks: tuple[Name, ...] = ()
    axes: tuple[Axis, ...]
    context_methods: tuple[ContextMethod, ...]
    repeats_key_values: bool
    axis_orders: tuple[AxisOrder, ...]
    schedules: tuple[Schedule, ...]
    splits: Splits
    recompute_by: RecomputeBy
    fused_attention: bool
    fused_attention_on_request: bool
    softmax_batch: Count
    attention_share: Fraction
    ampere_attention: bool
    statistics_bytes: Literal[4, 64]
    fused_norm: bool
    fused_rotary: bool
    fused_activation: bool
    fused_residual: bool
    compiled: bool
    permutation_bytes: Annotated[int, Field(ge=8, le=64)]
    fused_accumulation: bool
    dummy_gradients: bool
    deterministic: bool
    selective_recompute: Annotated[tuple[RecomputedModule, ...], Field(min_length=1)]
    spared_products: Literal[0, 1, 2]
    narrow_inputs: bool
    dynamic_scaling: bool
    narrow_parameters: bool
    loss: LossKernels
    logits_bytes: Annotated[int, Field(ge=2, le=32)]
    dropout: bool
    gradient_bytes: Annotated[int, Field(ge=2, le=4)]
    fp16_gradient_bytes: Annotated[int, Field(ge=2, le=4)]
    keeps_narrow_gradients: bool
    reduce_bytes: Annotated[int, Field(ge=2, le=4)]
    gather_bytes: Annotated[int, Field(ge=1, le=2)]
    quantised_reduction: bool
    master_bytes: Literal[0, 2, 4]
    overlap_gradients: bool
    overlap_parameters: bool
    overlap_tensor: bool
    hides_tensor_sums: bool
    narrow_tensor_gathers: bool
    overlap_pipeline: bool
    deduplicated_dispatch: bool
    split_messages: bool
    vocabulary_parallel: bool
    partitions: Annotated[tuple[Partition, ...], Field(min_length=1)]
    hybrid_stages: tuple[Literal[1, 2], ...]
    keeps_stage_outputs: bool
    micro_batch_a_stage: bool
    steps_together: bool
    reshard_in_pipeline: bool
    defers_synchronisation: bool
    packs_gradients: bool
    unpacks_parameters: bool
    gather_efficiency: Fraction
    gathers_per_layer: Count
    layer_launch: Seconds
    expert_launch: Seconds
    collective_launch: Seconds
    step_overhead: Seconds
    loaded_kernels: Bytes
    allocator_slack: Share
    flat_optimizer: bool
    reports_first_step: bool

    @field_validator("axis_orders")
    @classmethod
    def _has_the_usual_order(cls, given: tuple[AxisOrder, ...]) -> tuple[AxisOrder, ...]:
        if AxisOrder.PIPELINE_OUTERMOST not in given:
            raise field_error("", f"must hold {AxisOrder.PIPELINE_OUTERMOST}, the order where no other is nearer")
        return given
