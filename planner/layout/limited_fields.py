"""The fields of a layout that limits may be on, and the values that each can have.

Degrees, shards and recomputed layers are whole numbers from 1, the others are of closed sets; a split is "even", or the
layers of each chunk in model order: "17-15".
"""

from collections.abc import Mapping, Sequence

from meshwright.catalog.entry import field_error
from meshwright.catalog.errors import InputError
from meshwright.catalog.names import match_name
from meshwright.costmodels.layout import AXIS_ORDERS, CONTEXT_METHODS, RECOMPUTES, SCHEDULES

Value = bool | int | str

DEGREES = (
    "tensor_parallel",
    "context_parallel",
    "pipeline_parallel",
    "virtual_pipeline",
    "data_parallel",
    "expert_parallel",
    "expert_tensor_parallel",
    "micro_batch",
    "ulysses_parallel",
)
SHARDS = ("zero_shard", "gradient_shard", "parameter_shard", "backward_shard")
RECOMPUTED = "recompute_layers"
SPLIT = "split"
EVEN = "even"
CLOSED: Mapping[str, tuple[Value, ...]] = {
    "sequence_parallel": (False, True),
    "vocabulary_parallel": (False, True),
    "zero_stage": (0, 1, 2, 3),
    "context_method": tuple(map(str, CONTEXT_METHODS)),
    "axis_order": tuple(map(str, AXIS_ORDERS)),
    "recompute": tuple(map(str, RECOMPUTES)),
    "schedule": tuple(map(str, SCHEDULES)),
}
NUMBERS = (*DEGREES, *SHARDS, RECOMPUTED)
FIELDS = (*NUMBERS, *CLOSED, SPLIT)
ORDERED = (*NUMBERS, "zero_stage")
SHORT = {
    "tp": "tensor_parallel",
    "cp": "context_parallel",
    "pp": "pipeline_parallel",
    "vp": "virtual_pipeline",
    "dp": "data_parallel",
    "ep": "expert_parallel",
    "etp": "expert_tensor_parallel",
}
# What the search chooses too, but not by itself.
FOLLOWING = {"recompute_split": "recompute, recompute_layers and split"}
LARGEST = 10**9


def field_named(name: object) -> str:
    """Give the field that a name or shorthand spells. Raises the error of a field where there is none."""
    if name in FOLLOWING:
        raise field_error(str(name), f"follows from {FOLLOWING[str(name)]}; limit one of those")
    try:
        return SHORT.get(str(name)) or match_name(str(name), FIELDS, kind="field of a layout")
    except InputError as error:
        raise field_error(f"{name:.80}", error.message, hint=error.hint) from None


def checked(field: str, value: object, *, key: object) -> Value:
    """Give a value of a field, called `key`, as limits hold it. Raises the error of a field where it can't be one."""
    if field == SPLIT:
        return _split(value, key=key)
    if field in CLOSED:
        for known in CLOSED[field]:
            if value == known and type(value) is type(known):
                return known
        every = ", ".join(map(shown, CLOSED[field]))
        raise field_error(f"{key}", f"must be one of {every}, not {shown(value)}")
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise field_error(f"{key}", f"must be a whole number from 1 to {LARGEST:,}, not {shown(value)}")
    return value


def split_sizes(value: Value) -> tuple[int, ...]:
    """Give the layers of each chunk that a split says, empty where it's even."""
    return () if value == EVEN else tuple(map(int, str(value).split("-")))


def code_of(field: str, value: Value) -> int:
    """Give the value as the column of a LayoutTable holds it."""
    return CLOSED[field].index(value) if field in CLOSED else int(value)


def shown_code(field: str, code: int) -> str:
    """Show what a column holds as users write it."""
    return shown(CLOSED[field][code] if field in CLOSED else int(code))


def shown(value: object) -> str:
    """Show a value as users write it."""
    return str(value).lower() if isinstance(value, bool) else f"{value!s:.60}"


def leaves_some(field: str, forbidden: Sequence[Value], most: int) -> bool:
    """Say whether a field has a value that isn't forbidden and, where it has an order, at most `most`."""
    if field not in CLOSED:
        return sum(int(value) <= most for value in forbidden) < most
    return any(value not in forbidden and (field not in ORDERED or int(value) <= most) for value in CLOSED[field])


def _split(value: object, *, key: object) -> str:
    if value == EVEN:
        return EVEN
    parts = value if isinstance(value, list | tuple) else str(value).replace(",", "-").split("-")
    sizes = [str(part).strip() for part in parts]
    if len(sizes) < 2 or not all(size.isascii() and size.isdigit() and len(size) < 9 and int(size) for size in sizes):
        known = f"must be {EVEN}, or the layers of each chunk such as 17-15"
        raise field_error(f"{key}", f"{known}, not {shown(value)}")
    return "-".join(str(int(size)) for size in sizes)
