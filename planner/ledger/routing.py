"""Even routing: which experts a token goes to follows from its place in the sequence, so that all get as many.

Choice j of the k experts of the token at position p is (p k + j) mod E. It is what benchmarks force routers to do, and
what plans of models without a load spread assume; the router's weights still scale what the chosen experts give.
"""

from meshwright.costmodels.transformer import Experts
from meshwright.planner.ledger.workload import Workload


def first_position(workload: Workload, rank: int) -> int:
    """Give the position in its sequences of the first token that a rank routes."""
    own = workload.rank(rank)
    parts = workload.layout.tensor_parallel if workload.layout.sequence_parallel else 1
    within = own.coordinates["tensor"] * (workload.local_sequence // parts) if parts > 1 else 0
    return own.coordinates["context"] * workload.local_sequence + within


def rows_by_expert(workload: Workload, experts: Experts, rank: int) -> tuple[int, ...]:
    """Give how many rows of a micro-batch a rank has for each expert."""
    sequences = workload.layout.micro_batch
    choices = workload.local_tokens // sequences * experts.top_k
    start = first_position(workload, rank) * experts.top_k
    whole, rest = divmod(choices, experts.experts)
    return tuple(sequences * (whole + ((expert - start) % experts.experts < rest)) for expert in range(experts.experts))
