"""Modules for torchtitan, read without running them; its own parser reads them in tests/targets."""

import ast
from typing import Any

import pytest
from emitted_plans import layout_of, plan_named

from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import find_model, stack_named
from meshwright.catalog.precision import Precision
from meshwright.planner import Plan, emit
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.emission.reading import Known
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.importing import SOURCES
from meshwright.planner.plan_schema import LayoutSection


def changed(name: str, *, layout: dict[str, Any] | None = None, model: str | None = None, **job: object) -> Plan:
    plan = plan_named(name)
    section = LayoutSection.of(layout_of({**plan.layout.model_dump(), **(layout or {})}))
    entry = plan.inputs.model.entry if model is None else find_model(model)
    inputs = plan.inputs.model_copy(
        update={
            "job": plan.inputs.job.model_copy(update=job),
            "model": plan.inputs.model.model_copy(update={"entry": entry}),
        }
    )
    return plan.model_copy(update={"layout": section, "inputs": inputs})


def calls(plan: Plan) -> dict[str, dict[str, Any]]:
    """Give the literal arguments of each call of the module, by what is called."""
    found: dict[str, dict[str, Any]] = {}
    for node in ast.walk(ast.parse(emit(plan, "torchtitan").files["meshwright_plan.py"])):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            name = f"{name} {ast.unparse(node.args[0])}" if name == "replace" else name
            literal = {str(word.arg): word.value for word in node.keywords if _is_literal(word.value)}
            found[name] = {word: ast.literal_eval(value) for word, value in literal.items()}
    return found


def _is_literal(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Call | ast.Name) for part in ast.walk(node))


def test_degrees_and_batch_by_hand() -> None:
    said = calls(plan_named("pipeline-fsdp"))
    degrees = said["ParallelismConfig"]
    assert (degrees["pipeline_parallel_degree"], degrees["tensor_parallel_degree"]) == (4, 4)
    assert (degrees["data_parallel_replicate_degree"], degrees["data_parallel_shard_degree"]) == (1, 4)
    assert degrees["fsdp_reshard_after_forward"] == "never"
    assert degrees["pipeline_parallel_schedule"] == "1F1B"
    parts = degrees["module_fqns_per_model_part"]
    assert parts[0] == ["tok_embeddings", *(f"layers.{layer}" for layer in range(20))]
    assert parts[3][-2:] == ["norm", "lm_head"]
    # 128 sequences over 4 replicas, which the pipeline cuts into micro-batches of one.
    assert said["replace base.training"] == {
        "local_batch_size": 32,
        "global_batch_size": 128,
        "seq_len": 8192,
        "disable_cuda_graphs": True,
    }


def test_context_ranks_shard_with_the_replicas() -> None:
    layout = {"context_parallel": 4, "context_method": "all-gather", "data_parallel": 8, "zero_shard": 8}
    degrees = calls(changed("hsdp", layout=layout))["ParallelismConfig"]
    assert degrees["context_parallel_degree"] == 4
    assert (degrees["data_parallel_replicate_degree"], degrees["data_parallel_shard_degree"]) == (4, 2)


def test_some_layers_are_recomputed_by_a_class_of_its_own() -> None:
    plan = changed("pipeline-fsdp", layout={"recompute_split": (2, 1, 0, 0)})
    assert calls(plan)["ChosenLayersAC.Config"] == {"layers": (0, 1, 20)}


@pytest.mark.parametrize(
    ("precision", "model", "expected"),
    [
        (Precision.BF16, None, {}),
        (Precision.FP8, None, {"Float8LinearConverter": {"filter_fqns": ["lm_head", "router.gate"]}}),
        (
            Precision.FP8,
            "qwen3-30b-a3b",
            {
                "Float8LinearConverter": {"filter_fqns": ["lm_head", "router.gate"]},
                "Float8GroupedExpertsConverter": {},
            },
        ),
        (Precision.MXFP8, None, {"MXFP8LinearConverter": {"fqns": ["attention", "feed_forward", "shared_experts"]}}),
    ],
)
def test_narrow_formats_by_converters(precision: Precision, model: str | None, expected: dict[str, Any]) -> None:
    plan = changed("fsdp", model=model, precision=precision)
    said = {name.removesuffix(".Config"): given for name, given in calls(plan).items() if "Converter" in name}
    assert said == {name: {**given, "model_compile_enabled": False} for name, given in expected.items()}


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP8, Precision.MXFP8])
def test_formats_come_back(precision: Precision) -> None:
    plan = changed("fsdp", precision=precision)
    text = EMITTERS[EmitTarget.TORCHTITAN].files(plan)["meshwright_plan.py"]
    known = Known(file="config.py", devices=8, model=plan.inputs.model.entry)
    assert SOURCES[EmitTarget.TORCHTITAN].read(text, known).precision is precision
    with pytest.raises(InputError, match="a format that plans don't hold"):
        SOURCES[EmitTarget.TORCHTITAN].read(text + "\nNVFP4LinearConverter.Config()\n", known)


def test_a_compiled_model_says_so_to_its_converters() -> None:
    plan = changed("fsdp", precision=Precision.FP8)
    compiled = stack_named("fsdp2").model_copy(update={"fused_norm": True})
    stack = plan.inputs.stack.model_copy(update={"entry": compiled})
    said = calls(plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"stack": stack})}))
    assert said["CompileConfig"] == {"enable": True}
    assert said["Float8LinearConverter.Config"]["model_compile_enabled"] is True


@pytest.mark.parametrize(
    ("fields", "path", "feature"),
    [
        ({"layout": {"zero_stage": 1}}, "layout.zero_stage", "shards optimizer states with gradients"),
        ({"layout": {"backward_shard": 2}}, "layout.parameter_shard", "over the same ranks"),
        ({"layout": {"recompute": "selective"}}, None, ""),
        ({"model": "gpt3-175b"}, "inputs.model.entry.name", "has no model of the dimensions of gpt3-175b"),
        ({"precision": Precision.NVFP4}, "inputs.job.precision", "isn't told to train in nvfp4"),
        ({"precision": Precision.FP16}, "inputs.job.precision", "isn't told to train in fp16"),
    ],
)
def test_what_it_cannot_run_is_refused(fields: dict[str, Any], path: str | None, feature: str) -> None:
    plan = changed("fsdp", **fields)
    if path is None:
        assert calls(plan)["SelectiveAC.Config"] == {}
        return
    with pytest.raises(InputError, match=feature) as refusal:
        emit(plan, "torchtitan")
    assert refusal.value.path == path
