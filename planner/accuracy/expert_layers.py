"""Which layers of a model have experts, as launch scripts say it: every n-th, or a pattern of repeated lists."""

import re

_TERM = re.compile(r"\[(?P<flags>[01](?:\s*,\s*[01])*)\](?:\s*\*\s*(?P<times>[0-9]{1,5}))?")


def expert_layers(frequency: int | str, *, layers: int, dense: int) -> tuple[bool, ...]:
    """Tell of each layer whether it has experts.

    Args:
        frequency: n for every n-th layer from the first, -1 for all, or a pattern: "([0]*3+[1]*12)" for 3 layers
            without experts, then 12 with.
        layers: layers in all.
        dense: leading layers that have none.

    Raises ValueError where the frequency means nothing or the pattern is not `layers` long.

    """
    text = str(frequency).strip()
    if re.fullmatch(r"-1|[1-9][0-9]{0,5}", text):
        every = 1 if text == "-1" else int(text)
        return tuple(index >= dense and index % every == 0 for index in range(layers))
    flags = _pattern(text)
    if len(flags) != layers:
        raise ValueError(f"moe_layer_freq {text!r:.60} is for {len(flags)} layers, not {layers}")
    return tuple(index >= dense and flag for index, flag in enumerate(flags))


def _pattern(text: str) -> tuple[bool, ...]:
    inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    flags: list[bool] = []
    for part in inner.split("+"):
        term = _TERM.fullmatch(part.strip())
        if term is None:
            raise ValueError(
                f"moe_layer_freq {text!r:.60} is neither a count, -1, nor a pattern such as ([0]*3+[1]*12)"
            )
        flags += [flag.strip() == "1" for flag in term["flags"].split(",")] * int(term["times"] or 1)
    return tuple(flags)
