"""Placements and routing in files, for tests."""

import json
from pathlib import Path

import numpy as np
from expert_instances import loads

from meshwright.planner import place_experts
from meshwright.planner.experts import Placement
from meshwright.planner.experts.output import placement_files


def small() -> Placement:
    return place_experts(loads(3, 24, "lognormal", seed=3), devices=4, slots=28)


def written(placement: Placement, folder: Path) -> Path:
    for name, content in placement_files(placement, at=(1, 2, 3), model_layers=4).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def save(path: Path, value: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, value, allow_pickle=True)
    elif path.suffix == ".npz":
        assert isinstance(value, dict)
        np.savez(path, **value)
    else:
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path
