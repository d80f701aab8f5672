"""The tiles that attention kernels work on: their rows, triangles of scores, and heads that fit the matrix units."""

# Query rows of one tile of fused attention (arXiv 2307.08691, section 3.3).
TILE_ROWS = 128


def misalignment(head_dim: int) -> float:
    """Give how much longer products over heads of an awkward width take.

    Matrix units load 16 bytes at a time: rows of 8 two-byte values. Other widths fall back to narrower loads: the
    four-value and the two-value kernels of BigScience's benchmarks (108 and 150 wide heads) take about six and a half
    and nine times as long.
    """
    if head_dim % 8 == 0:
        return 1.0
    return 6.5 if head_dim % 4 == 0 else 9.0


def triangle_pairs(sequence_length: int, piece: int) -> float:
    """Count the causal (query, key) pairs of a sequence cut into pieces that see nothing of one another.

    Each is a triangle; the last one is of what is left.
    """
    pieces, rest = divmod(sequence_length, piece)
    return pieces * piece**2 / 2.0 + rest**2 / 2.0
