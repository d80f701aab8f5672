"""The schema of cases: every shipped case is one, and what is not a case is told so with its path."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Recompute
from meshwright.planner.accuracy.case import Case, MemoryKind, Trust
from meshwright.planner.accuracy.case_file import load_cases, parse_cases
from meshwright.planner.accuracy.expert_layers import expert_layers

MEASUREMENTS = Path(__file__).parent.parent / "catalog" / "measurements"
MakeDocument = Callable[..., dict[str, Any]]


def parse(document: object) -> Case:
    return parse_cases([document], file="cases.yaml")[0]


def case_or_error(document: object) -> Case | InputError:
    try:
        return parse(document)
    except InputError as error:
        return error


def test_every_shipped_file_is_cases() -> None:
    counts = {path.stem: len(load_cases(path)) for path in sorted(MEASUREMENTS.glob("*.yaml"))}
    assert sum(counts.values()) == 1001
    assert counts["bigscience_bloom"] == 85
    assert counts["simumax"] == 30
    assert len(counts) == 19


def test_a_shipped_case_keeps_what_its_source_says() -> None:
    case = next(case for case in load_cases(MEASUREMENTS / "zero_bubble.yaml") if case.id == "zb-1.5b-zb-2p-m24")
    assert case.trust is Trust.MEDIUM
    assert case.layout.schedule is Schedule.ZERO_BUBBLE_2P
    assert case.layout.recompute is Recompute.NONE
    assert (case.model.layers, case.model.hidden, case.batch.micro_batch) == (22, 2304, 6)
    assert case.measured is not None
    assert case.measured.step_time_s == 1.241


def test_memory_says_who_counted_it() -> None:
    case = next(iter(load_cases(MEASUREMENTS / "simumax.yaml")))
    assert case.measured is not None
    assert (case.measured.peak_memory_bytes, case.measured.peak_memory_kind) == (71457518387, MemoryKind.ALLOCATED)


@pytest.mark.parametrize(
    ("frequency", "dense", "expected"),
    [
        (1, 0, "111111"),
        ("-1", 0, "111111"),
        (-1, 2, "001111"),
        (2, 0, "101010"),
        (2, 1, "001010"),
        ("([0]*2+[1]*4)", 0, "001111"),
        ("[0, 1]*3", 0, "010101"),
        (" [0]*1 + [1]*5 ", 0, "011111"),
    ],
)
def test_layers_with_experts_by_hand(frequency: int | str, dense: int, expected: str) -> None:
    flags = expert_layers(frequency, layers=6, dense=dense)
    assert "".join(str(int(flag)) for flag in flags) == expected


@pytest.mark.parametrize(
    "frequency", [0, -2, "0", "", "[0]*3", "([0]*3+[1]*2)", "[2]*6", "__import__('os')", "[1]*99999999", "[1]**6"]
)
def test_a_pattern_that_means_nothing_is_refused(frequency: int | str) -> None:
    with pytest.raises(ValueError, match="moe_layer_freq"):
        expert_layers(frequency, layers=6, dense=0)


MIXTURE = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 512}


@pytest.mark.parametrize(
    ("extra", "width"),
    [
        ({}, 0),
        ({"shared_experts": 2}, 1024),
        ({"n_shared_experts": 1}, 512),
        ({"shared_expert_ffn": 700}, 700),
        ({"shared_experts": 0}, 0),
    ],
)
def test_width_of_shared_experts(case_document: MakeDocument, extra: dict[str, int], width: int) -> None:
    case = parse(case_document(model={"moe": MIXTURE | extra}))
    assert case.model.moe is not None
    assert case.model.moe.shared_ffn_hidden == width


@pytest.mark.parametrize(
    ("spelling", "schedule"),
    [
        ("1f1b", Schedule.ONE_F_ONE_B),
        ("1F1B-interleaved", Schedule.INTERLEAVED),
        ("interleaved 1F1B with scatter/gather when pp>1", Schedule.INTERLEAVED),
        ("zb-1p", Schedule.ZERO_BUBBLE_H1),
        ("zb-2p", Schedule.ZERO_BUBBLE_2P),
        ("gpipe", Schedule.GPIPE),
    ],
)
def test_schedules_by_their_published_names(case_document: MakeDocument, spelling: str, schedule: Schedule) -> None:
    assert parse(case_document(layout={"schedule": spelling})).layout.schedule is schedule


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"layout": {"tensor_paralel": 2}}, "0.layout.tensor_paralel", "not a known key"),
        ({"layout": {"Tensor-Parallel": 2}}, "0.layout.Tensor-Parallel", "not a known key"),
        ({"layout": {"overlap_\x1b[31m": True}}, "0.layout.'overlap_\\x1b[31m'", "not a known key"),
        ({"model": {"hiden": 2}}, "0.model.hiden", "not a known key"),
        ({"model": {"moe": MIXTURE | {"tpo_k": 2}}}, "0.model.moe.tpo_k", "not a known key"),
        ({"colour": "red"}, "0.colour", "not a known key"),
        ({"batch": {"global_batch": 0}}, "0.batch.global_batch", "greater than or equal to 1"),
        ({"batch": {"micro_batch": -4}}, "0.batch.micro_batch", "greater than or equal to 1"),
        ({"batch": {"global_batch": "64"}}, "0.batch.global_batch", "a whole number"),
        ({"batch": {"global_batch": 64.0}}, "0.batch.global_batch", "a whole number"),
        ({"batch": {"global_batch": True}}, "0.batch.global_batch", "a whole number"),
        ({"model": {"layers": 10**30}}, "0.model.layers", "less than or equal"),
        ({"model": {"gated_mlp": "maybe"}}, "0.model.gated_mlp", "true or false"),
        ({"model": {"kv_heads": 3}}, "0.model.kv_heads", "multiple of kv_heads"),
        ({"model": {"heads": 7}}, "0.model.head_dim", "head_dim is needed"),
        ({"model": {"moe": MIXTURE | {"top_k": 9}}}, "0.model.moe.top_k", "can't be chosen"),
        ({"model": {"moe": MIXTURE | {"n_group": 3}}}, "0.model.moe.n_group", "shared evenly by 3 groups"),
        ({"model": {"moe": MIXTURE | {"topk_group": 2}}}, "0.model.moe.topk_group", "2 of 1 groups can't be chosen"),
        (
            {"model": {"moe": MIXTURE | {"n_group": 8, "topk_group": 1}}},
            "0.model.moe.topk_group",
            "hold 1 experts, fewer than",
        ),
        (
            {"model": {"moe": MIXTURE | {"moe_layer_freq": "[1]*7"}}},
            "0.model.moe.moe_layer_freq",
            "for 7 layers, not 8",
        ),
        ({"model": {"ffn_hidden": None}}, "0.model.ffn_hidden", "ffn_hidden is needed"),
        ({"precision": "int4"}, "0.precision", "'bf16'"),
        ({"trust": "total"}, "0.trust", "'high'"),
        ({"layout": {"recompute": "some"}}, "0.layout.recompute", "'selective'"),
        ({"layout": {"schedule": "pipedream"}}, "0.layout.schedule", "'1f1b'"),
        ({"layout": {"zero_stage": 4}}, "0.layout.zero_stage", "less than or equal to 3"),
        ({"layout": {"cuda_graph": 2}}, "0.layout.cuda_graph", "true or false"),
        ({"measured": {"step_time_s": -1.0}}, "0.measured.step_time_s", "must be from 1e-06 to 1e+09 seconds"),
        ({"measured": {"step_time_s": 1e-300}}, "0.measured.step_time_s", "must be from 1e-06 to 1e+09 seconds"),
        ({"measured": {"step_time_s": 1e18}}, "0.measured.step_time_s", "must be from 1e-06 to 1e+09 seconds"),
        (
            {"cluster": {"inter_node_gbps_per_node": 1e-300}},
            "0.cluster.inter_node_gbps_per_node",
            "1e-06 to 1e+09 Gb/s",
        ),
        ({"model": {"parameters_billion": 1e-300}}, "0.model.parameters_billion", "from 1e-09 to 1e+09 billion"),
        ({"measured": {"step_time_s": float("nan")}}, "0.measured.step_time_s", "finite"),
        ({"measured": {"peak_memory_bytes": 10}}, "0.measured.peak_memory_kind", "peak_memory_kind"),
    ],
)
def test_each_fault_is_named_with_its_path(
    case_document: MakeDocument, changes: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse(case_document(**changes))
    assert caught.value.path == path
    assert caught.value.file == "cases.yaml"
    assert words in str(caught.value)


def test_a_missing_field_is_named(case_document: MakeDocument) -> None:
    document = case_document()
    del document["model"]["hidden"]
    with pytest.raises(InputError, match=r"0\.model\.hidden: is missing"):
        parse(document)


@pytest.mark.parametrize("text", ["", "[]", "just words", "{id: a, model: b}", "7"])
def test_a_file_that_is_no_list_of_cases_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="not a list of cases") as caught:
        load_cases(file)
    assert caught.value.hint


def test_json_is_read_like_yaml(tmp_path: Path, case_document: MakeDocument) -> None:
    yaml_file, json_file = tmp_path / "cases.yaml", tmp_path / "cases.json"
    yaml_file.write_text(yaml.safe_dump([case_document()]))
    json_file.write_text(json.dumps([case_document()]))
    assert load_cases(yaml_file) == load_cases(json_file)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["True", "none (all)", "1f1b", "full", "([0]*3+[1]*5)", "-1", "${CP_TYPE}", "0.0"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def paths_of(value: object, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    here = [prefix] if prefix else []
    if not isinstance(value, dict):
        return here
    return here + [path for key, inner in value.items() for path in paths_of(inner, (*prefix, key))]


SHIPPED = [
    yaml.safe_load(path.read_text())[0] for path in sorted(MEASUREMENTS.glob("*.yaml")) if path.stat().st_size < 50_000
]
CROWDED = SHIPPED[0] | {"model": SHIPPED[0]["model"] | {"moe": MIXTURE | {"moe_layer_freq": 1, "capacity_factor": "1"}}}


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(draw(st.sampled_from([*SHIPPED, CROWDED])))
    for _ in range(draw(st.integers(1, 3))):
        *parents, key = draw(st.sampled_from(paths_of(document)))
        place = document
        for parent in parents:
            place = place[parent]
        action = draw(st.sampled_from(["replace", "delete", "add"]))
        if action == "replace":
            place[key] = draw(VALUES)
        elif action == "delete":
            del place[key]
        else:
            place[draw(st.text(max_size=8))] = draw(VALUES)
        if not document:
            return document
    return document


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(mutants())
@example({})
def test_a_mutated_case_is_a_case_or_one_clear_error(document: dict[str, Any]) -> None:
    outcome = case_or_error(document)
    if isinstance(outcome, Case):
        assert Case.model_validate(outcome.model_dump(mode="json")) == outcome
    else:
        assert outcome.path.startswith("0")
        assert "\n" not in outcome.message


@settings(max_examples=200)
@given(VALUES)
def test_any_document_is_a_case_or_one_clear_error(document: object) -> None:
    with pytest.raises(InputError):
        parse(document)
