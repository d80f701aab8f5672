"""The digest of a plan's inputs: SHA-256 over their canonical JSON (sorted keys, no blanks, ASCII)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest_of(inputs: Mapping[str, Any]) -> str:
    """Give the digest of inputs as they stand in the file; their own `digest` isn't part of it.

    Taken of the document, not of what it is parsed to: a later version with more fields still gets the same digest.
    """
    document = {key: value for key, value in inputs.items() if key != "digest"}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode("ascii")).hexdigest()
