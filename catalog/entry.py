"""What catalog entries share: unknown keys are errors, values never change, and numbers name their source."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# The bounds are far beyond any machine or model, and keep what is computed from them within the numbers of numpy.
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Fraction = Annotated[float, Field(ge=1e-6, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Source = Annotated[str, Field(min_length=4)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Entry(BaseModel):
    """Base of every schema read from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
