"""Names as people type them: case, dots, dashes, underscores and blanks don't matter.

A misspelt one gets the nearest names.
"""

import difflib
from collections.abc import Iterable

from meshwright.catalog.errors import InputError


def canonical_name(name: str) -> str:
    """Give the form under which two spellings of one name are equal."""
    return "".join(character for character in name.casefold() if character not in ".-_ ")


def is_slip_of(name: str, known: str) -> bool:
    """Tell whether `name` was meant to be `known`: with a letter too many, too few, or two that changed places.

    Another letter in the place of one is no slip: such names often are of another thing (tp_overlap, dp_overlap).
    """
    name, known = canonical_name(name), canonical_name(known)
    if name == known:
        return True
    short, long = sorted((name, known), key=len)
    if len(long) == len(short) + 1:
        return any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
    differ = [place for place, (one, other) in enumerate(zip(name, known, strict=False)) if one != other]
    return (
        len(name) == len(known)
        and len(differ) == 2
        and differ[1] == differ[0] + 1
        and (name[differ[0]], name[differ[1]]) == (known[differ[1]], known[differ[0]])
    )


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
