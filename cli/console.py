"""Where text goes: answers to standard output, or JSON alone; progress and complaints to standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.text import Text

from meshwright.catalog.errors import Infeasible, MeshwrightError, PlanDrift
from meshwright.cli.render.text import printable

PIPED_WIDTH = 100
QUIET_S = 2.0

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
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def watcher(description: str) -> Callable[[Sequence[Item]], Iterable[Item]]:
    """Give a function that hands items on and shows how far they are, where standard error is a terminal."""
    console = error_console()

    def watch(items: Sequence[Item]) -> Iterable[Item]:
        return track(items, description, console=console, transient=True, disable=not console.is_terminal)

    return watch


def busy(description: str) -> AbstractContextManager[object]:
    """Give a context that shows that something takes a while, where standard error is a terminal."""
    console = error_console()
    return console.status(description) if console.is_terminal else nullcontext()


@contextmanager
def searching(description: str, *, shown: Callable[[Item], str]) -> Iterator[Callable[[Item], None] | None]:
    """Give a context with a function to tell how far a search is; after two seconds that is shown, on a terminal."""
    console, start = error_console(), monotonic()
    if not console.is_terminal:
        yield None
        return
    with console.status(description) as status:

        def watch(progress: Item) -> None:
            if monotonic() - start >= QUIET_S:
                status.update(f"{description}: {shown(progress)}")

        yield watch


def print_warning(text: str) -> None:
    """Write a warning to standard error."""
    error_console().print(Text.assemble(("warning: ", "bold yellow"), printable(text)), soft_wrap=True)


def print_error(error: MeshwrightError) -> None:
    """Write an error to standard error: what is wrong, what is known of it, and what to do next."""
    console = error_console()
    for label, text in _lines(error):
        console.print(
            Text.assemble((label, "bold red" if label == "error: " else "bold"), printable(text)), soft_wrap=True
        )


def _lines(error: MeshwrightError) -> Iterator[tuple[str, str]]:
    yield "error: ", error.message
    if isinstance(error, Infeasible):
        for reason, count in sorted(error.rejected.items(), key=lambda item: (-item[1], item[0])):
            yield f"{count:>12,}  ", reason
        if error.nearest_miss:
            yield "nearest miss: ", error.nearest_miss
    if isinstance(error, PlanDrift):
        for difference in error.differences:
            yield "  ", difference
    if error.hint:
        yield "hint: ", error.hint
