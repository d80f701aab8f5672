"""How attention sees a sequence that is cut over devices."""

from enum import StrEnum


class ContextMethod(StrEnum):
    """What context ranks exchange, so that each query meets all the keys it looks at.

    ring: keys and values go round, block by block, while attention works on the block before.
    bidirectional-ring: one half of each block goes round one way, the other half the other way.
    all-gather: keys and values are gathered before attention starts (arXiv 2407.21783, section 3.3.2).
    ulysses: heads are exchanged for tokens, so that a rank has whole sequences of some heads (arXiv 2309.14509).
    hybrid: Ulysses over neighbouring ranks, a ring over the rest (arXiv 2405.07719).
    """

    RING = "ring"
    BIDIRECTIONAL_RING = "bidirectional-ring"
    ALL_GATHER = "all-gather"
    ULYSSES = "ulysses"
    HYBRID = "hybrid"
