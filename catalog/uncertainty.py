"""The catalog's uncertainty."""

from functools import cache
from importlib import resources

from meshwright.catalog.document import parse_yaml, validate
from meshwright.catalog.uncertainty_entry import UncertaintyEntry

FILE = "uncertainty.yaml"


@cache
def shipped_uncertainty() -> UncertaintyEntry:
    """Load `catalog/uncertainty.yaml`, once."""
    text = resources.files("meshwright.catalog").joinpath(FILE).read_text("utf-8")
    return validate(UncertaintyEntry, parse_yaml(text, file=FILE), file=FILE)
