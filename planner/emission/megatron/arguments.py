"""Arguments of a command line in the style of Megatron-LM, and their two forms: words, and a document."""

from collections.abc import Iterator, Mapping

Value = bool | int | float | str | tuple[int | str, ...]
# By name without dashes; True is a flag that is given. False and None don't occur.
Arguments = Mapping[str, Value]


def words(arguments: Arguments) -> Iterator[str]:
    """Give the arguments as words of a command line."""
    for name, value in arguments.items():
        yield f"--{name}"
        if isinstance(value, tuple):
            yield from map(str, value)
        elif value is not True:
            yield str(value)


def document(arguments: Arguments) -> dict[str, object]:
    """Give the arguments as the MODEL_ARGS of a recipe: names with dashes, flags true, several values in one text."""
    return {
        f"--{name}": " ".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in arguments.items()
    }
