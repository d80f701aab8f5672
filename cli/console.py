"""Where text goes: answers to standard output, or JSON alone; progress and complaints to standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.text import Text

from meshwright.catalog.errors import Infeasible, MeshwrightError, PlanDrift

PIPED_WIDTH = 100

Item = TypeVar("Item")


def output_console() -> Console:
    """Give the console for answers: as wide as the terminal, or 100 columns where piped, and then without colour."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def error_console() -> Console:
    """Give the console for progress and complaints."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else PIPED_WIDTH, highlight=False)


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write one JSON document to standard output. Infinities and NaN aren't JSON: they raise ValueError."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def watcher(description: str) -> Callable[[Sequence[Item]], Iterable[Item]]:
    """Give a function that hands items on and shows how far they are, where standard error is a terminal."""
    console = error_console()

    def watch(items: Sequence[Item]) -> Iterable[Item]:
        return track(items, description, console=console, transient=True, disable=not console.is_terminal)

    return watch


def print_error(error: MeshwrightError) -> None:
    """Write an error to standard error: what is wrong, what is known of it, and what to do next."""
    console = error_console()
    console.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if isinstance(error, Infeasible):
        for reason, count in sorted(error.rejected.items(), key=lambda item: (-item[1], item[0])):
            console.print(Text(f"  {count:>12,}  {reason}"), soft_wrap=True)
        if error.nearest_miss:
            console.print(Text.assemble(("nearest miss: ", "bold"), error.nearest_miss), soft_wrap=True)
    if isinstance(error, PlanDrift):
        for difference in error.differences:
            console.print(Text(f"  {difference}"), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold"), error.hint), soft_wrap=True)
