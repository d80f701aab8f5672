"""Placements as launch scripts of serving engines, emitted from a `placement.json`.

Plans are for training; what an engine takes from here is how many devices and redundant experts it is to have, and
where the experts are.
"""

import json
from collections.abc import Mapping
from enum import StrEnum

from meshwright.planner.emission.shell import HERE, array, script
from meshwright.planner.experts.formats import sglang, vllm
from meshwright.planner.experts.placement_file import PlacementFile


class ServingTarget(StrEnum):
    """What serves a placement."""

    SGLANG = "sglang"
    VLLM = "vllm"


VERSIONS = {ServingTarget.SGLANG: "SGLang 0.5.23", ServingTarget.VLLM: "vLLM 0.33"}
LOCATIONS = "expert_locations.json"
PLACEMENT = "placement.json"


def serving_files(placed: PlacementFile, target: ServingTarget) -> Mapping[str, str]:
    """Give the files by name. The same placement gives the same bytes."""
    slots, devices = placed.without_empty, placed.devices
    redundant = placed.slots - placed.experts
    header = (
        f"For {VERSIONS[target]}, by meshwright {placed.meshwright}.\n"
        f"{placed.experts} experts in {placed.slots} slots on {devices} devices; the busiest has "
        f"{placed.served_over_mean:.4f} of the mean.\n"
        "Give the model, and what else the engine takes, as arguments."
    )
    if target is ServingTarget.SGLANG:
        locations = sglang.text(slots, devices=devices, at=placed.layers, layers=placed.model_layers)
        words = _sglang_words(placed, redundant)
        lines = (HERE, array("serve", words), _pointed("python3 -m sglang.launch_server"))
    else:
        locations = vllm.text(slots, devices=devices)
        lines = (HERE, array("serve", _vllm_words(placed, redundant)), 'vllm serve "$@" "${serve[@]}"')
    return {"run.sh": script(header, lines), LOCATIONS: locations, PLACEMENT: placed.model_dump_json() + "\n"}


def _sglang_words(placed: PlacementFile, redundant: int) -> tuple[str, ...]:
    return (
        *("--tp-size", str(placed.devices)),
        *("--ep-size", str(placed.devices)),
        *("--ep-num-redundant-experts", str(redundant)),
        *("--nnodes", str(placed.nodes)),
    )


def _vllm_words(placed: PlacementFile, redundant: int) -> tuple[str, ...]:
    # vLLM has no option for a first placement: its balancer starts from experts in turn, and takes the list in code.
    return (
        *("--data-parallel-size", str(placed.devices)),
        "--enable-expert-parallel",
        "--enable-eplb",
        *("--eplb-config", json.dumps({"num_redundant_experts": redundant})),
    )


def _pointed(command: str) -> str:
    return f'{command} "${{serve[@]}}" --init-expert-location "$here/{LOCATIONS}" "$@"'
