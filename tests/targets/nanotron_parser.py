"""Runs Nanotron's own reader of configurations, and the way that it cuts layers into stages.

    python nanotron_parser.py CHECKOUT < documents.json

For each document a line of JSON is printed, of what was understood or why it was refused.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from stand_ins import stand_in


def main(checkout: str) -> None:
    """Read each document."""
    stand_in("flash_attn")
    sys.path.insert(0, str(Path(checkout) / "src"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nanotron.yaml"
        for document in json.load(sys.stdin):
            file.write_text(yaml.safe_dump(document))
            print(json.dumps(_answer(file), default=str), flush=True)


def _answer(file: Path) -> dict[str, Any]:
    from nanotron.config import get_config_from_file

    try:
        config = get_config_from_file(str(file))
    except Exception as error:  # whatever its dataclasses raise is a refusal
        return {"refused": f"{type(error).__name__}: {error}"}
    degrees, model = config.parallelism, config.model.model_config
    return {
        "dp": degrees.dp,
        "tp": degrees.tp,
        "pp": degrees.pp,
        "engine": type(degrees.pp_engine).__name__,
        "mode": degrees.tp_mode.name,
        "recompute": degrees.recompute_layer,
        "global_batch": config.global_batch_size,
        "tokens": config.global_batch_size_in_tokens,
        "zero_stage": config.optimizer.zero_stage,
        "model": type(model).__name__,
        "layers": model.num_hidden_layers,
        "experts": None if model.moe_config is None else model.moe_config.num_experts,
    }


if __name__ == "__main__":
    main(sys.argv[1])
