"""Launch configurations read back: what was emitted comes back as it was, and what can't be read is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from emitted_plans import PLANS, layout_of, plan_named
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner import Plan, emit
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.emission.reading import Known
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.importing import SOURCES, import_plan
from meshwright.planner.plan_schema import LayoutSection

# The files of each target that are read back.
FILES = {
    EmitTarget.MEGATRON: ("arguments.sh", "arguments.yaml"),
    EmitTarget.TORCHTITAN: ("meshwright_plan.py",),
    EmitTarget.DEEPSPEED: ("deepspeed.json",),
    EmitTarget.ACCELERATE: ("accelerate.yaml",),
}
READ_BACK = [(target, file, name) for target, files in FILES.items() for file in files for name in PLANS]


def with_layout(plan: Plan, layout: Layout) -> Plan:
    mesh = plan.mesh.model_copy(update={"devices": layout.world_size})
    return plan.model_copy(update={"layout": LayoutSection.of(layout), "mesh": mesh})


def canonical(layout: Layout, layers: int) -> Layout:
    """An even cut that is written out is the even cut; as many layers of each chunk can be said once."""
    chunks = layout.pipeline_parallel * layout.virtual_pipeline
    even = layout.split == chunk_sizes(layers, chunks)
    return replace(layout, split=() if even else layout.split)


def read_back(plan: Plan, target: EmitTarget, file: str) -> Layout:
    known = Known(
        file=file,
        devices=plan.layout.layout().world_size,
        model=plan.inputs.model.entry,
        global_batch=plan.inputs.job.global_batch,
        sequence_length=plan.inputs.job.sequence_length,
        micro_batch=plan.layout.micro_batch,
        recompute=plan.layout.recompute,
    )
    text = EMITTERS[target].files(plan)[file]
    return SOURCES[target].read(text, known).layout


@pytest.mark.parametrize(("target", "file", "name"), READ_BACK)
def test_what_was_emitted_comes_back(target: EmitTarget, file: str, name: str) -> None:
    plan = plan_named(name)
    if any(EMITTERS[target].obstacles(plan)):
        with pytest.raises(InputError):
            emit(plan, target)
        return
    expected = canonical(plan.layout.layout(), plan.inputs.model.entry.layers)
    assert read_back(plan, target, file) == expected


@st.composite
def layouts(draw: st.DrawFn, *, layers: int) -> Layout:
    power = st.sampled_from([1, 2, 4, 8])
    pipeline, virtual = draw(power), draw(st.sampled_from([1, 2]))
    virtual = virtual if pipeline > 1 else 1
    tensor, context, data = draw(power), draw(power), draw(power)
    chunks = pipeline * virtual
    sizes = draw(st.permutations(chunk_sizes(layers, chunks)))
    stage = draw(st.sampled_from([0, 1, 2, 3]))
    shard = data * context // draw(st.sampled_from([n for n in (1, 2, 4) if data % n == 0]))
    stage = stage if shard > 1 else 0
    recompute = draw(st.sampled_from(["none", "selective", "full"]))
    count = draw(st.sampled_from([None, 1, 2])) if recompute == "full" else None
    fields: dict[str, Any] = {
        "tensor_parallel": tensor,
        "sequence_parallel": tensor > 1 and draw(st.booleans()),
        "context_parallel": context,
        "context_method": draw(st.sampled_from(["ring", "all-gather", "ulysses"])) if context > 1 else "ring",
        "pipeline_parallel": pipeline,
        "virtual_pipeline": virtual,
        "schedule": "interleaved" if virtual > 1 else "1f1b",
        "split": tuple(sizes) if chunks > 1 and tuple(sizes) != chunk_sizes(layers, chunks) else (),
        "data_parallel": data,
        "axis_order": draw(st.sampled_from(AxisOrder)) if context == 1 else AxisOrder.PIPELINE_OUTERMOST,
        "zero_stage": stage,
        "zero_shard": shard if stage else 1,
        "recompute": recompute,
        "recompute_layers": None if count is None or count >= max(sizes) else count,
        "micro_batch": draw(st.sampled_from([1, 2])),
    }
    return layout_of(fields)


@pytest.mark.parametrize("target", FILES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_layout_that_a_target_runs_comes_back(target: EmitTarget, data: st.DataObject) -> None:
    plan = plan_named("gqa-tensor")
    layout = data.draw(layouts(layers=plan.inputs.model.entry.layers))
    drawn = with_layout(plan, layout)
    if not any(EMITTERS[target].obstacles(drawn)):
        for file in FILES[target]:
            assert read_back(drawn, target, file) == layout


@pytest.mark.parametrize("name", ["uneven", "moe", "latent-attention", "dense-3d", "long-context"])
def test_an_imported_plan_predicts_what_the_emitted_one_did(name: str, tmp_path: Path) -> None:
    plan = plan_named(name)
    file = tmp_path / "arguments.sh"
    file.write_text(emit(plan, "megatron").files["arguments.sh"])
    cluster = PLANS[name][1]
    found = import_plan(file, "megatron", cluster=cluster, model=PLANS[name][0])
    assert found.unmodelled == ()
    assert found.plan.predicted == plan.predicted
    anonymous = import_plan(file, "megatron", cluster=cluster)
    assert anonymous.plan.predicted.step_time_s == pytest.approx(plan.predicted.step_time_s, rel=1e-12)


def megatron(tmp_path: Path, change: str = "", without: str = "") -> Path:
    text = emit(plan_named("dense-3d"), "megatron").files["arguments.sh"]
    lines = [line for line in text.splitlines() if not (without and without in line)]
    file = tmp_path / "arguments.sh"
    file.write_text("\n".join(lines).replace("\n)", f"\n    {change}\n)") + "\n")
    return file


@pytest.mark.parametrize(
    ("change", "without", "message"),
    [
        ("", "--num-layers", r"--num-layers: is missing"),
        ("", "--micro-batch-size", r"--micro-batch-size: is missing"),
        ("--tensor-model-parallel-size $TP", "--tensor-model", r"variable of the shell"),
        (
            "--context-parallel-size 2 --use-tp-pp-dp-mapping",
            "--context-parallel-size",
            r"--use-tp-pp-dp-mapping: plans hold it without context parallelism",
        ),
        ("--tensor-model-parallel-size 0", "--tensor-model", r"'0', not a whole number"),
        ("--tensor-model-parallel-size 7", "--tensor-model", r"don't divide 1024"),
        ("--pipeline-model-parallel-layout Et|tL", "", r"holds 2 layers"),
        ("--pipeline-model-parallel-layout Ex|L", "", r"not a layout"),
        ("--num-distributed-optimizer-instances 3", "", r"3 instances don't divide the 16"),
        ("--recompute-modules everything", "--recompute-modules", r"recomputation of everything"),
        ("--global-batch-size 1000", "--global-batch", r"aren't whole micro-batches"),
        ("--moe-layer-freq x --num-experts 8", "", r"--moe-layer-freq: is 'x'"),
    ],
)
def test_arguments_that_make_no_plan_are_refused(change: str, without: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        import_plan(megatron(tmp_path, change, without), "megatron", cluster="selene:1024")


def test_settings_that_plans_do_not_hold_are_named(tmp_path: Path) -> None:
    file = megatron(tmp_path, "--optimizer-cpu-offload")
    assert import_plan(file, "megatron", cluster="selene:1024").unmodelled == ("--optimizer-cpu-offload",)


def test_another_model_than_the_one_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.layers: the file says 96, megatron-145b has 80"):
        import_plan(megatron(tmp_path), "megatron", cluster="selene:1024", model="megatron-145b")


def test_a_batch_of_two_minds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="says 1536, --global-batch 3072"):
        import_plan(megatron(tmp_path), "megatron", cluster="selene:1024", global_batch=3072)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def plan(:", "isn't a Python module"),
        ("x = 1", "builds no ParallelismConfig"),
        ("ParallelismConfig(tensor_parallel_degree=T)\nTrainingConfig()", "isn't a literal value"),
        (
            "ParallelismConfig(pipeline_parallel_degree=2, pipeline_parallel_schedule='LoopedBFS')\nTrainingConfig()",
            "'LoopedBFS', which plans don't hold",
        ),
        ("ParallelismConfig(data_parallel_shard_degree=3)\nTrainingConfig(local_batch_size=1)", "aren't the 8"),
    ],
)
def test_modules_that_make_no_plan_are_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        import_plan(
            file, "torchtitan", cluster="dgx-h100:8", model="llama-3.1-8b", global_batch=8, sequence_length=8192
        )


def test_arguments_as_people_write_them() -> None:
    text = """
    torchrun --nproc_per_node 8 pretrain_gpt.py \\
        --num-layers 32 --hidden-size 4096 --num-attention-heads=32 --group-query-attention --num-query-groups 8 \\
        --ffn-hidden-size 14336 --swiglu --normalization RMSNorm --position-embedding-type rope --vocab-size 128256 \\
        --rotary-base 500000 \\
        --disable-bias-linear --untie-embeddings-and-output-weights --seq-length 8192 --bf16 \\
        --tensor-model-parallel-size 2 --sequence-parallel --pipeline-model-parallel-size 4 \\
        --decoder-first-pipeline-num-layers 7 --decoder-last-pipeline-num-layers 7 \\
        --micro-batch-size 1 --global-batch-size 64 --use-distributed-optimizer  # as we always do
    """
    reading = SOURCES[EmitTarget.MEGATRON].read(text, Known(file="train.sh", devices=16))
    assert reading.layout == layout_of(
        {"tensor_parallel": 2, "sequence_parallel": True, "pipeline_parallel": 4, "data_parallel": 2}
        | {"split": (7, 9, 9, 7), "zero_stage": 1, "zero_shard": 2}
    )
    assert (reading.model.head_dim, reading.model.kv_heads, reading.model.qkv_bias) == (128, 8, False)
    assert reading.model.rotary_base == 500_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "isn't a configuration of DeepSpeed"),
        ('{"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 4}}', "is 4, not 0 to 3"),
        ('{"train_micro_batch_size_per_gpu": 0}', "is 0, not a whole number from 1"),
        ('{"train_batch_size": 64}', "doesn't tell the micro-batch"),
        ('{"train_batch_size": 60, "gradient_accumulation_steps": 8}', "60 sequences aren't 8 micro-batches"),
        (
            '{"train_batch_size": 64, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 4}',
            "is 64, not 1 x 4 micro-batches x 8 replicas",
        ),
        ('{"bf16": {"enabled": 1}, "train_micro_batch_size_per_gpu": 1}', "is 1, not true or false"),
        ('{"tensor_parallel": {"autotp_size": 3}}', "don't divide 8"),
    ],
)
def test_configurations_of_deepspeed_that_make_no_plan_are_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        import_plan(file, "deepspeed", cluster="dgx-h100:8", model="llama-3.1-8b", sequence_length=2048)


def test_accumulation_tells_what_is_auto() -> None:
    text = """{"train_batch_size": 64, "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": 4,
        "bf16": {"enabled": true}, "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}"""
    model = plan_named("fsdp").inputs.model.entry
    reading = SOURCES[EmitTarget.DEEPSPEED].read(text, Known(file="deepspeed.json", devices=8, model=model))
    assert (reading.layout.micro_batch, reading.layout.zero_stage, reading.layout.zero_shard) == (2, 3, 8)
    assert reading.unmodelled == ("zero_optimization.offload_param",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("distributed_type: DEEPSPEED", "is DEEPSPEED, which isn't read"),
        ("{distributed_type: FSDP, num_processes: 4}", "is 4, on a cluster of 8 devices"),
        ("{distributed_type: FSDP, mixed_precision: int4}", "is 'int4'"),
        (
            "{distributed_type: FSDP, parallelism_config: {parallelism_config_dp_shard_size: 3}}",
            "1 x 3 ranks aren't the 8",
        ),
    ],
)
def test_configurations_of_accelerate_that_make_no_plan_are_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(text)
    asked = {"global_batch": 8, "sequence_length": 2048, "micro_batch": 1}
    with pytest.raises(InputError, match=message):
        import_plan(file, "accelerate", cluster="dgx-h100:8", model="llama-3.1-8b", **asked)
