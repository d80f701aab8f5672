"""What catalog entries share: unknown keys are errors, values never change, and numbers name their source."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

# The bounds are far beyond any machine or model, and keep what is computed from them within the numbers of numpy.
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Fraction = Annotated[float, Field(ge=1e-6, le=1, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Source = Annotated[str, Field(min_length=4)]


def _printable(name: str) -> str:
    hidden = next((character for character in name if not character.isprintable()), None)
    if hidden is not None:
        raise ValueError(f"must hold printable characters only, not {hidden!r}")
    return name


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


def field_error(field: str, message: str, *, hint: str = "") -> PydanticCustomError:
    """Give the error for a validator of a whole entry to raise, which leads to one field ("experts.top_k") of it."""
    return PydanticCustomError("inconsistent", "{message}", {"field": field, "message": message, "hint": hint})


class Entry(BaseModel):
    """Base of every schema read from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
