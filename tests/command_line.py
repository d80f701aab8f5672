"""How tests run the command line in their own process."""

from collections.abc import Callable

# What a command ends with: its exit code, and what it wrote to both streams.
Outcome = tuple[int, str, str]
Run = Callable[..., Outcome]
