"""Models that torchtitan has: the flavour of its registry with a catalog model's dimensions."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.catalog.model_entry import ModelEntry

# layers, hidden, heads, kv_heads, ffn_hidden, vocab, experts, their groups, a token's: what tells the flavours apart.
Dimensions = tuple[int, int, int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A model of torchtitan.models.<family>: its name in the registry, and the configuration to start from.

    assets: the folder of its tokenizer; where the configuration to start from is of another size, or quantises.
    """

    family: str
    name: str
    config: str
    assets: str


FLAVORS: Mapping[Dimensions, Flavor] = {
    (32, 4096, 32, 8, 14336, 128256, 0, 1, 1): Flavor(
        family="llama3", name="8B", config="llama3_8b", assets="./assets/hf/Llama-3.1-8B"
    ),
    (80, 8192, 64, 8, 28672, 128256, 0, 1, 1): Flavor(
        family="llama3", name="70B", config="llama3_70b", assets="./assets/hf/Llama-3.1-70B"
    ),
    (126, 16384, 128, 8, 53248, 128256, 0, 1, 1): Flavor(
        family="llama3", name="405B", config="llama3_70b", assets="./assets/hf/Llama-3.1-405B"
    ),
    (48, 2048, 32, 4, 768, 151936, 128, 1, 1): Flavor(
        family="qwen3", name="30B-A3B", config="qwen3_30b_a3b", assets="./assets/hf/Qwen3-30B-A3B"
    ),
    (94, 4096, 64, 4, 1536, 151936, 128, 1, 1): Flavor(
        family="qwen3", name="235B-A22B", config="qwen3_30b_a3b", assets="./assets/hf/Qwen3-235B-A22B"
    ),
    (61, 7168, 128, 128, 2048, 129280, 256, 8, 4): Flavor(
        family="deepseek_v3", name="671B", config="deepseek_v3_671b", assets="./assets/hf/DeepSeek-V3"
    ),
}


def flavor_of(entry: ModelEntry) -> Flavor | None:
    """Give the flavour of a model; None where torchtitan has none."""
    experts = entry.experts
    return FLAVORS.get(
        (
            entry.layers,
            entry.hidden,
            entry.heads,
            entry.kv_heads,
            entry.ffn_hidden if experts is None else experts.ffn_hidden,
            entry.vocab,
            0 if experts is None else experts.experts,
            1 if experts is None else experts.groups,
            1 if experts is None else experts.groups_per_token,
        )
    )
