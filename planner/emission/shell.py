"""Text of shell scripts: what comes from a plan is quoted, wherever it stands."""

import shlex
from collections.abc import Iterable, Mapping

HERE = 'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)'


def quoted(value: object) -> str:
    """Give a value as one word of the shell."""
    return shlex.quote(str(value))


def comment(text: str) -> str:
    """Give a text as lines of comment."""
    return "".join(f"# {line}\n" for line in text.splitlines())


def script(header: str, lines: Iterable[str]) -> str:
    """Give a bash script that stops at the first failure."""
    return "#!/usr/bin/env bash\n" + comment(header) + "set -euo pipefail\n" + "".join(f"{line}\n" for line in lines)


def array(name: str, words: Iterable[str]) -> str:
    """Give a bash array, a line for each option with its values."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--") or not lines:
            lines.append(f"    {quoted(word)}")
        else:
            lines[-1] += f" {quoted(word)}"
    return f"{name}=(\n" + "".join(f"{line}\n" for line in lines) + ")"


def exports(variables: Mapping[str, str | None]) -> tuple[str, ...]:
    """Give the lines that set environment variables; None unsets one."""
    return tuple(
        f"unset {name}" if value is None else f"export {name}={quoted(value)}" for name, value in variables.items()
    )
