"""The fields of Megatron-Bridge's ConfigContainer that mean what options of Megatron-LM mean."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from meshwright.planner.emission.megatron.arguments import Arguments

# By section, the fields and their values.
Fields = dict[str, dict[str, Any]]
# Options that aren't fields of the model by the same name, with the fields that they are.
ELSEWHERE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "seq-length": ("model.seq_length", "dataset.seq_length"),
        "vocab-size": ("tokenizer.vocab_size",),
        "num-experts": ("model.num_moe_experts",),
        "use-distributed-optimizer": ("ddp.use_distributed_optimizer", "optimizer.use_distributed_optimizer"),
        "num-distributed-optimizer-instances": ("ddp.num_distributed_optimizer_instances",),
        "use-megatron-fsdp": ("ddp.use_megatron_fsdp", "dist.use_megatron_fsdp"),
        "data-parallel-sharding-strategy": ("ddp.data_parallel_sharding_strategy",),
        "ckpt-format": ("checkpoint.ckpt_format",),
        "use-tp-pp-dp-mapping": ("dist.use_tp_pp_dp_mapping",),
    }
)
# Flags that switch off what a field of the model switches on.
INVERTED: Mapping[str, str] = MappingProxyType(
    {
        "untie-embeddings-and-output-weights": "share_embeddings_and_output_weights",
        "disable-bias-linear": "add_bias_linear",
        "no-gradient-accumulation-fusion": "gradient_accumulation_fusion",
    }
)
# Options that follow from others, or that are said by other means.
UNSAID = (
    "swiglu",
    "group-query-attention",
    "max-position-embeddings",
    "num-layers-per-virtual-pipeline-stage",
    "window-size",
    "window-attn-skip-freq",
    "moe-layer-freq",
)


def fields_of(arguments: Arguments) -> Fields:
    """Give the fields that arguments are, by section."""
    found: Fields = {}
    for path, value in _paths(arguments):
        section, _, name = path.partition(".")
        found.setdefault(section, {})[name] = list(value) if isinstance(value, tuple) else value
    return found


def _paths(arguments: Arguments) -> Iterator[tuple[str, Any]]:
    for option, value in arguments.items():
        if option in INVERTED:
            yield f"model.{INVERTED[option]}", False
        elif option not in UNSAID:
            for path in ELSEWHERE.get(option, (f"model.{option.replace('-', '_')}",)):
                yield path, value
