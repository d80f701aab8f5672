"""Loading the constants that were fitted without one source of measurements each."""

from importlib.resources import files

from meshwright.catalog.cross_validation_entry import CrossValidationEntry
from meshwright.catalog.document import parse_yaml, validate

FILE = "cross_validation.yaml"


def cross_validation() -> CrossValidationEntry:
    """Give what `catalog/cross_validation.yaml` holds."""
    text = (files("meshwright.catalog") / FILE).read_text("utf-8")
    return validate(CrossValidationEntry, parse_yaml(text, file=FILE), file=FILE)
