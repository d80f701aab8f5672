"""The schema of a case: everything needed to predict one training step and, where it was measured, what was measured.

`catalog/measurements/README.md` explains the fields. Units are in the names, since the figures are copied from tables.
A key that isn't listed here is an error, but in an `OpenEntry`, since sources have words of their own for what they
switch on. Switches whose text is only told to people (`Remark`) change no prediction.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.entry import Entry, Name, Natural, field_error
from meshwright.catalog.model_entry import GroupCount, require_groups
from meshwright.catalog.names import is_slip_of
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Recompute
from meshwright.planner.accuracy.expert_layers import expert_layers

LARGEST_SIZE = 10**9

# What schedules are called elsewhere: in the papers, in the fork of Megatron-LM that has them, and in PyTorch.
SCHEDULE_NAMES = {
    "1f1b-interleaved": Schedule.INTERLEAVED,
    "afab": Schedule.GPIPE,
    "zb-1p": Schedule.ZERO_BUBBLE_H1,
    "zb1p": Schedule.ZERO_BUBBLE_H1,
    "zb-h2": Schedule.ZERO_BUBBLE_2P,
    "zb2p": Schedule.ZERO_BUBBLE_2P,
    "zb-v": Schedule.ZERO_BUBBLE_V,
    "v-zb": Schedule.ZERO_BUBBLE_V,
    "zbvzerobubble": Schedule.ZERO_BUBBLE_V,
    "dualpipe-v": Schedule.DUAL_PIPE_V,
}

Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE, strict=True)]
Layers = Annotated[int, Field(ge=1, le=10_000, strict=True)]
Bool = Annotated[bool, Field(strict=True)]
Remark = Annotated[str, Field(max_length=2000)] | bool
Text = Annotated[str, Field(min_length=1, max_length=2000)]


# How switches are written that YAML doesn't read as such.
WRITTEN = dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off", "none", "disabled"), False)


def _switch(value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    return WRITTEN.get(value.casefold(), value) if isinstance(value, str) else value


def _number(value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    return value


def _within(least: float, most: float, unit: str) -> AfterValidator:
    """Hold a figure to a range that nothing real lies outside, and say it."""

    def check(value: float) -> float:
        if not least <= value <= most:
            raise ValueError(f"must be from {least:g} to {most:g} {unit}")
        return value

    return AfterValidator(check)


def _schedule(value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    if not isinstance(value, str):
        return value
    name = value.casefold()
    if name.startswith("interleaved"):
        return Schedule.INTERLEAVED
    return SCHEDULE_NAMES.get(name, name)


Switch = Annotated[bool, BeforeValidator(_switch), Field(strict=True)]
# On, off, or on with the name of what does it.
Setting = Switch | Annotated[str, Field(min_length=1, max_length=200)]
Figure = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Seconds = Annotated[Figure, _within(1e-6, 1e9, "seconds")]
GigabitsPerSecond = Annotated[Figure, _within(1e-6, 1e9, "Gb/s")]
Billion = Annotated[Figure, _within(1e-9, 1e9, "billion")]
Number = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1e6, allow_inf_nan=False, strict=True)]


class Trust(StrEnum):
    """How much of what matters is printed at the source."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class MemoryKind(StrEnum):
    """Who counted: the framework's allocator, the same with its slack, or the driver."""

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    NVIDIA_SMI = "nvidia_smi"


class OpenEntry(Entry):
    """An entry whose source may say more than is known here: other keys are kept, misspelt ones are errors."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _none_is_misspelt(self) -> Self:
        for key in self.unknown_keys:
            meant = next((known for known in type(self).model_fields if is_slip_of(key, known)), "")
            if meant or not (key.isprintable() and key.strip()):
                raise field_error(key, "is not a known key", hint=f"did you mean {meant}?" if meant else "")
        return self

    @property
    def unknown_keys(self) -> tuple[str, ...]:
        """The keys that nothing here knows, in order."""
        return tuple(self.model_extra or ())


class CaseExperts(OpenEntry):
    """A mixture of experts.

    shared_experts, n_shared_experts: how many experts every token visits; shared_expert_ffn: their width together.
    dense_layers, dense_first: leading layers without experts (-1: none).
    moe_layer_freq: every n-th layer has experts (-1: all), or a pattern such as "([0]*3+[1]*12)".
    n_group, topk_group: a token's experts are in so many of as many equal groups of them.
    load_spread: standard deviation of the experts' loads over their mean, where it was measured; else they are even.
    """

    experts: Size
    top_k: Size
    expert_ffn_hidden: Size
    shared_experts: Natural | None = None
    n_shared_experts: Natural | None = None
    shared_expert_ffn: Annotated[int, Field(ge=0, le=LARGEST_SIZE, strict=True)] | None = None
    dense_layers: Natural | None = None
    dense_first: Annotated[int, Field(ge=-1, strict=True)] | None = None
    moe_layer_freq: Annotated[int, Field(strict=True)] | Annotated[str, Field(max_length=200)] = 1
    n_group: GroupCount = 1
    topk_group: GroupCount | None = None
    capacity_factor: Number | None = None
    padded_to_capacity: Switch = False
    load_spread: Annotated[float, Field(ge=0, le=10)] = 0.0
    dispatcher: Remark | None = None
    grouped_gemm: Switch = False

    @model_validator(mode="after")
    def _chosen_exist(self) -> Self:
        if self.top_k > self.experts:
            raise field_error("top_k", f"{self.top_k} of {self.experts} experts can't be chosen")
        require_groups(self.experts, self.top_k, self.n_group, self.groups_per_token, names=("n_group", "topk_group"))
        if self.load_spread and self.capacity_factor is not None:
            raise field_error("load_spread", "a capacity_factor sets the load of experts: leave one of the two out")
        return self

    @property
    def groups_per_token(self) -> int:
        """Groups that a token's experts are in: all of them where that isn't told."""
        return self.n_group if self.topk_group is None else self.topk_group

    @property
    def shared_ffn_hidden(self) -> int:
        """Width of the shared experts together."""
        if self.shared_expert_ffn is not None:
            return self.shared_expert_ffn
        return (self.shared_experts or self.n_shared_experts or 0) * self.expert_ffn_hidden

    def in_layers(self, layers: int) -> tuple[bool, ...]:
        """Tell of each of `layers` layers whether it has experts. Raises ValueError."""
        dense = self.dense_layers if self.dense_layers is not None else max(self.dense_first or 0, 0)
        return expert_layers(self.moe_layer_freq, layers=layers, dense=dense)


class CaseLatentAttention(Entry):
    """Multi-head latent attention, with the names of the Hugging Face configuration."""

    q_lora_rank: Size | None
    kv_lora_rank: Size
    qk_nope_head_dim: Size
    qk_rope_head_dim: Size
    v_head_dim: Size


class CaseModel(OpenEntry):
    """A decoder-only transformer.

    attention: "full", "sliding window N" where each layer looks back N tokens only, "chunked N" where none looks beyond
    its chunk of N, or "alternating full / " and one of these where every other layer does.
    """

    name: Name = "model"
    layers: Layers
    hidden: Size
    heads: Size
    kv_heads: Size | None = None
    head_dim: Size | None = None
    ffn_hidden: Size | None = None
    gated_mlp: Bool
    vocab: Size | None = None
    tied_embeddings: Bool
    sequence_length: Size
    parameters_billion: Billion | None = None
    attention: Text | None = None
    moe: CaseExperts | None = None
    mla: CaseLatentAttention | None = None
    mtp_layers: Annotated[int, Field(ge=0, le=100, strict=True)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise field_error("kv_heads", f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.head_dim is None and self.mla is None and self.hidden % self.heads:
            raise field_error(
                "head_dim", f"head_dim is needed, since {self.heads} heads don't divide hidden {self.hidden}"
            )
        sparse = self._with_experts()
        if self.ffn_hidden is None and not all(sparse):
            raise field_error("ffn_hidden", "ffn_hidden is needed for the layers without experts")
        return self

    def _with_experts(self) -> tuple[bool, ...]:
        if self.moe is None:
            return (False,)
        try:
            return self.moe.in_layers(self.layers)
        except ValueError as error:
            raise field_error("moe.moe_layer_freq", str(error)) from None


class CaseCluster(Entry):
    """`devices` of a catalog device; `inter_node_gbps_per_node` is the network of one node, per direction, in Gb/s."""

    device: Name
    devices: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    devices_per_node: Annotated[int, Field(ge=1, le=10**4, strict=True)]
    inter_node: Text | None = None
    inter_node_gbps_per_node: GigabitsPerSecond | None = None


class CaseLayout(OpenEntry):
    """Degrees, and the switches that the source names. What is left out takes the framework's usual setting.

    overlap: "none", and what that is of, where nothing is hidden.
    grad_accumulation: the format in which gradients are added up, "fp32" or one of 16 bits.
    """

    tensor_parallel: Size = 1
    sequence_parallel: Bool = False
    context_parallel: Size = 1
    context_parallel_method: Text | None = None
    pipeline_parallel: Size = 1
    virtual_pipeline: Size = 1
    data_parallel: Size | None = None
    axis_order: AxisOrder | None = None
    expert_parallel: Size = 1
    expert_tensor_parallel: Size | None = None
    zero_stage: Annotated[int, Field(ge=0, le=3, strict=True)] = 0
    zero_shard_devices: Size | None = None
    gradient_shard_devices: Size | None = None
    parameter_shard_devices: Size | None = None
    backward_shard_devices: Size | None = None
    schedule: Annotated[Schedule, BeforeValidator(_schedule)] | None = None
    recompute: Recompute | None = None
    recompute_detail: Remark | None = None
    flash_attention: Setting | None = None
    overlap: Annotated[Remark, BeforeValidator(_switch)] | None = None
    overlap_grad_reduce: Setting | None = None
    overlap_param_gather: Setting | None = None
    tp_comm_overlap: Setting | None = None
    async_tp: Setting | None = None
    compile: Setting | None = None
    cuda_graph: Setting | None = None
    grad_accumulation: Text | None = None
    dropout: Number | None = None
    reuse_fp32_param: Setting | None = None
    first_last_pp_layers: Annotated[str, Field(pattern=r"^[0-9]{1,5}(,[0-9]{1,5})*$", max_length=2000)] | None = None
    vocabulary_parallel: Setting | None = None
    asymmetric_pp: Remark | None = None
    pp_partition: Remark | None = None
    no_accumulation_fusion: Setting | None = None
    deterministic: Setting | None = None
    transformer_impl: Remark | None = None
    cross_entropy_fusion: Setting | None = None
    fp8_params: Setting | None = None
    optimizer: Remark | None = None
    dispatcher: Remark | None = None
    kernel: Remark | None = None


class CaseBatch(Entry):
    """Sequences of one optimizer step, and of one forward pass of one replica."""

    global_batch: Size
    micro_batch: Size | None = None


class Measured(Entry):
    """What was read off: seconds, and bytes with who counted them."""

    step_time_s: Seconds | None = None
    peak_memory_bytes: Annotated[int, Field(ge=1, le=10**15, strict=True)] | None = None
    peak_memory_kind: MemoryKind | None = None
    peak_memory_rank: Text | None = None
    allocated_after_step_bytes: Annotated[int, Field(ge=1, le=10**15, strict=True)] | None = None
    out_of_memory: Bool = False

    @model_validator(mode="after")
    def _kind_is_told(self) -> Self:
        if self.peak_memory_bytes is not None and self.peak_memory_kind is None:
            raise field_error("peak_memory_kind", "peak_memory_bytes needs peak_memory_kind")
        return self


class Case(Entry):
    """One training step. What was measured and where is optional: a user's own layouts are cases too."""

    id: Name
    trust: Trust | None = None
    source: Text | None = None
    url: Text | None = None
    framework: Name | None = None
    precision: Precision
    model: CaseModel
    cluster: CaseCluster
    layout: CaseLayout
    batch: CaseBatch
    measured: Measured | None = None
    inferred: tuple[Text, ...] = ()
    unknown: tuple[Text, ...] = ()
    note: Text | None = None

    @property
    def fingerprint(self) -> str:
        """What two cases share that are one: all that they say, their ids included."""
        return self.model_dump_json()
