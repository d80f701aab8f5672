"""Is it a split? Asked of every answer, in plain loops that share nothing with what found it."""

from collections.abc import Iterator, Sequence

from meshwright.catalog.errors import SolverFailed

# Sums in another order differ by rounding.
ROUNDING = 1e-6

Group = tuple[int, int, Sequence[int], float]
"""First rank, number of ranks, sequences, seconds."""


def faults(
    micro_batches: Sequence[Sequence[Group]],
    *,
    lengths: Sequence[int],
    ranks: int,
    node_ranks: int,
    most_tokens: dict[int, int],
    step_time_s: float,
    lockstep: bool,
    every_rank: bool = False,
) -> Iterator[str]:
    """Give what is wrong with a split, a sentence each; nothing where all is right.

    most_tokens: that the memory of a group of each degree holds. every_rank: whether each rank has to have a group in
    each micro-batch, and so all of them as many.
    """
    seen = [0] * len(lengths)
    done_s = [0.0] * ranks
    barrier_s = 0.0
    for turn, groups in enumerate(micro_batches):
        taken = bytearray(ranks)
        longest_s = 0.0
        for first, size, sequences, seconds in groups:
            where = f"micro-batch {turn}, the group from rank {first} on"
            yield from _place_faults(where, first, size, ranks, node_ranks, taken)
            if size not in most_tokens:
                yield f"{where}: groups of {size} ranks aren't allowed"
                continue
            tokens = 0
            for sequence in sequences:
                if not 0 <= sequence < len(lengths):
                    yield f"{where}: there is no sequence {sequence}"
                    continue
                seen[sequence] += 1
                tokens += lengths[sequence]
            if not len(sequences):
                yield f"{where}: it has no sequence"
            if tokens > most_tokens[size]:
                yield f"{where}: {tokens} tokens, and its memory holds {most_tokens[size]}"
            end_s = max(done_s[first : first + size], default=0.0) + seconds
            done_s[first : first + size] = [end_s] * size
            longest_s = max(longest_s, seconds)
        if every_rank and not all(taken):
            yield f"micro-batch {turn}: rank {taken.index(0)} has no group"
        barrier_s += longest_s
    for sequence, times in enumerate(seen):
        if times != 1:
            yield f"sequence {sequence} is in {times} groups"
    expected_s = barrier_s if lockstep else max(done_s)
    if abs(expected_s - step_time_s) > ROUNDING * max(step_time_s, expected_s):
        yield f"the groups take {expected_s} s together, not {step_time_s} s"


def _place_faults(where: str, first: int, size: int, ranks: int, node_ranks: int, taken: bytearray) -> Iterator[str]:
    if first < 0 or first + size > ranks:
        yield f"{where}: it goes beyond the {ranks} ranks"
    if any(taken[first : first + size]):
        yield f"{where}: a rank of it is in another group too"
    taken[first : first + size] = b"\x01" * size
    if size <= node_ranks and node_ranks % size == 0 and first % size:
        yield f"{where}: {size} ranks that begin there aren't aligned to their node"


def require_sound(
    micro_batches: Sequence[Sequence[Group]],
    *,
    lengths: Sequence[int],
    ranks: int,
    node_ranks: int,
    most_tokens: dict[int, int],
    step_time_s: float,
    lockstep: bool,
    every_rank: bool = False,
) -> None:
    """Raise SolverFailed where a split isn't one."""
    for fault in faults(
        micro_batches,
        lengths=lengths,
        ranks=ranks,
        node_ranks=node_ranks,
        most_tokens=most_tokens,
        step_time_s=step_time_s,
        lockstep=lockstep,
        every_rank=every_rank,
    ):
        raise SolverFailed(f"the split found is wrong: {fault}", hint="please report it with the lengths")
