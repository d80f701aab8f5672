"""Clusters that aren't uniform, and clusters that change, against their bars: `make bench-mixed`."""

import sys
from collections.abc import Callable, Iterator

from bench_change import change_rows
from bench_islands import island_rows
from bench_row import Row

# The rows of each part, in the order in which they are shown.
PARTS: tuple[Callable[[], Iterator[Row]], ...] = (island_rows, change_rows)


def main() -> int:
    """Print a row a job; 1 where a bar is missed."""
    held = []
    for part in PARTS:
        for row in part():
            print(f"{row.job:<62} {row.found:<52} {row.bar:<12} {'ok' if row.holds else 'MISSED'}", flush=True)
            held.append(row.holds)
    print("all bars hold" if all(held) else "MISSED")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
