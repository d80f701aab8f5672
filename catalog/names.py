"""Names as people type them: case, dots, dashes, underscores and blanks don't matter.

A misspelt one gets the nearest names.
"""

import difflib
from collections.abc import Iterable

from meshwright.catalog.errors import InputError


def canonical_name(name: str) -> str:
    """Give the form under which two spellings of one name are equal."""
    return "".join(character for character in name.casefold() if character not in ".-_ ")


def match_name(name: str, known: Iterable[str], *, kind: str) -> str:
    """Give the member of `known` that `name` spells.

    Raises InputError with the nearest names where there is none.
    """
    by_canonical = {canonical_name(candidate): candidate for candidate in known}
    found = by_canonical.get(canonical_name(name))
    if found is not None:
        return found
    near = difflib.get_close_matches(canonical_name(name), by_canonical, n=3, cutoff=0.5)
    hint = (
        f"did you mean {', '.join(by_canonical[match] for match in near)}?"
        if near
        else f"known: {', '.join(sorted(by_canonical.values()))}"
    )
    raise InputError(f"no {kind} is called {name!r:.80}", hint=hint)
