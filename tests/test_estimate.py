"""Cases become jobs and layouts as their sources mean them, and every shipped case is predicted or says why not."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import entry_names, stack_named
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.transformer import Experts, Mlp
from meshwright.planner.accuracy import Case, Estimate, estimate, load_cases
from meshwright.planner.accuracy.case import MemoryKind
from meshwright.planner.accuracy.case_cluster import cluster_of_case, machine_named
from meshwright.planner.accuracy.case_layout import layouts_of_case, recomputed_modules
from meshwright.planner.accuracy.case_model import transformer_of_case
from meshwright.planner.accuracy.case_stack import stack_for, with_switches
from meshwright.planner.accuracy.estimate import Predicted

MEASUREMENTS = sorted((Path(__file__).parent.parent / "catalog" / "measurements").glob("*.yaml"))
MakeDocument = Callable[..., dict[str, Any]]
MIXTURE = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 512}


@pytest.fixture
def make_case(case_document: MakeDocument) -> Callable[..., Case]:
    return lambda **changes: Case.model_validate(case_document(**changes))


@pytest.fixture(scope="module")
def shipped() -> list[Estimate]:
    return estimate(MEASUREMENTS)


def test_at_least_98_percent_of_the_shipped_cases_are_predicted(shipped: list[Estimate]) -> None:
    unpredicted = {item.case.id: item.error for item in shipped if item.predicted is None}
    assert len(unpredicted) <= 0.02 * len(shipped), unpredicted
    assert all(reason and len(reason) > 10 for reason in unpredicted.values())


def test_every_breakdown_sums_to_its_total(shipped: list[Estimate]) -> None:
    for item in shipped:
        if item.predicted is not None:
            assert math.fsum(item.predicted.breakdown.values()) == pytest.approx(item.predicted.step_time_s, rel=1e-9)
            peak = item.predicted.peak_memory_bytes
            assert sum(item.predicted.memory_breakdown.values()) == peak[MemoryKind.ALLOCATED]
            assert peak[MemoryKind.ALLOCATED] <= peak[MemoryKind.RESERVED] <= peak[MemoryKind.NVIDIA_SMI]


def test_no_prediction_beats_the_devices_peak(shipped: list[Estimate]) -> None:
    for item in shipped:
        if item.predicted is not None:
            assert 0 < item.predicted.mfu < 1, item.case.id


def test_every_framework_that_is_measured_has_a_stack(shipped: list[Estimate]) -> None:
    told = {text for item in shipped if item.predicted for text in item.predicted.assumptions if "no stack" in text}
    assert not told


def test_models_have_as_many_parameters_as_their_sources_print() -> None:
    counted = 0
    for path in MEASUREMENTS:
        for case in load_cases(path):
            if case.model.parameters_billion is not None:
                model, _ = transformer_of_case(case.model)
                assert total_parameters(model) == pytest.approx(case.model.parameters_billion * 1e9, rel=0.03)
                counted += 1
    assert counted == 391


def test_an_unknown_vocabulary_is_that_of_the_family_and_told(make_case: Callable[..., Case]) -> None:
    gated, of_gated = transformer_of_case(make_case(model={"vocab": None, "gated_mlp": True}).model)
    plain, of_plain = transformer_of_case(make_case(model={"vocab": None}).model)
    assert (gated.vocab, plain.vocab) == (32_000, 50_257)
    assert "32,000" in of_gated[0]
    assert "50,257" in of_plain[0]


def test_a_pattern_puts_experts_where_it_says(make_case: Callable[..., Case]) -> None:
    moe = MIXTURE | {"moe_layer_freq": "([0]*3+[1]*5)", "shared_experts": 1}
    model, _ = transformer_of_case(make_case(model={"moe": moe}).model)
    assert [isinstance(layer.mlp, Experts) for layer in model.layers] == [False] * 3 + [True] * 5
    assert isinstance(model.layers[0].mlp, Mlp)
    assert isinstance(model.layers[3].mlp, Experts)
    assert model.layers[0].mlp.ffn_hidden == 4096
    assert model.layers[3].mlp.shared_ffn_hidden == 512


def test_every_other_layer_has_the_window(make_case: Callable[..., Case]) -> None:
    model, _ = transformer_of_case(make_case(model={"attention": "alternating full / sliding window 128"}).model)
    windows = [layer.attention.window for layer in model.layers]
    assert windows.count(128) == windows.count(None) == 4


def test_the_printed_network_is_shared_by_the_devices_of_a_node(make_case: Callable[..., Case]) -> None:
    case = make_case(cluster={"inter_node_gbps_per_node": 800})
    cluster, assumptions = cluster_of_case(case.cluster, machine_named("a100-sxm-80gb"))
    assert cluster.tiers[-1].bandwidth_bytes_per_s == pytest.approx(12.5e9)
    assert cluster.tiers[0].group == 8
    assert (cluster.devices, cluster.devices_per_node) == (16, 8)
    assert assumptions == ()


@pytest.mark.parametrize(
    ("printed", "link_devices"),
    [("4x200 Gb/s HDR IB", 2), ("8x400 Gb/s", 1), ("EFA 32x100 Gb/s", 1), ("32x100 Gb/s", 1)],
)
def test_a_printed_number_of_nics_is_shared(make_case: Callable[..., Case], printed: str, link_devices: int) -> None:
    case = make_case(cluster={"inter_node": printed, "inter_node_gbps_per_node": 800})
    cluster, _ = cluster_of_case(case.cluster, machine_named("a100-sxm-80gb"))
    assert cluster.tiers[-1].link_devices == link_devices


def test_an_unprinted_network_is_told(make_case: Callable[..., Case]) -> None:
    _, assumptions = cluster_of_case(make_case().cluster, machine_named("a100-sxm-80gb"))
    assert "the network isn't given" in assumptions[0]


def test_a_node_of_four_is_smaller_than_the_reference(make_case: Callable[..., Case]) -> None:
    cluster, _ = cluster_of_case(make_case(cluster={"devices_per_node": 4}).cluster, machine_named("a100-sxm-80gb"))
    assert [tier.group for tier in cluster.tiers] == [4, 16]


@pytest.mark.parametrize(("devices", "share"), [(64, 64), (72, 72), (128, 64), (256, 64), (5120, 64), (144, 72)])
def test_domains_larger_than_a_node_are_filled_alike(make_case: Callable[..., Case], devices: int, share: int) -> None:
    case = make_case(cluster={"device": "gb200-nvl72", "devices": devices, "devices_per_node": 4})
    cluster, _ = cluster_of_case(case.cluster, machine_named("gb200-nvl72"))
    assert cluster.tiers[0].group == share
    assert devices % share == 0


def test_the_longest_prefix_decides_the_stack() -> None:
    base = stack_named("megatron-core")
    short = base.model_copy(update={"name": "short", "frameworks": ("Megatron-LM",)})
    long = base.model_copy(update={"name": "long", "frameworks": ("Megatron-LM (main)", "other")})
    assert stack_for("megatron-lm (main) 25.01", [long, short], default=base)[0].name == "long"
    assert stack_for("Megatron-LM fork", [long, short], default=base)[0].name == "short"
    fallback, assumptions = stack_for("Colossal", [long, short], default=base)
    assert fallback is base
    assert "no stack for 'Colossal'" in assumptions[0]
    assert stack_for(None, [long, short], default=base)[1]


def test_switches_lie_over_the_stack(make_case: Callable[..., Case]) -> None:
    base = stack_named("megatron-core")
    given = {
        "flash_attention": False,
        "overlap_grad_reduce": False,
        "tp_comm_overlap": "True",
        "dropout": "0.1",
        "grad_accumulation": "fp16/bf16",
        "cuda_graph": "transformer_engine",
    }
    stack = with_switches(base, make_case(layout=given))
    assert not stack.fused_attention
    assert not stack.overlap_gradients
    assert stack.overlap_parameters is base.overlap_parameters
    assert stack.overlap_tensor
    assert stack.dropout
    assert (stack.gradient_bytes, stack.reduce_bytes) == (2, 2)
    assert stack.layer_launch < base.layer_launch
    assert with_switches(base, make_case()) == base


def test_compilation_fuses_what_eager_layers_leave_apart(make_case: Callable[..., Case]) -> None:
    eager = stack_named("fsdp2")
    kinds = ("fused_norm", "fused_rotary", "fused_activation", "fused_residual")
    for compiled in (True, False):
        stack = with_switches(eager, make_case(layout={"compile": compiled}))
        assert [getattr(stack, kind) for kind in kinds] == [compiled] * 4
    norms_alone = with_switches(stack_named("fsdp"), make_case(layout={"compile": False}))
    assert [getattr(norms_alone, kind) for kind in kinds] == [True, False, False, False]


@pytest.mark.parametrize(
    ("stack", "dispatcher", "moved"),
    [
        ("mindspeed", None, 36),
        ("mindspeed", "allgather", 36),
        ("mindspeed", "alltoall_seq", 8),
        ("megatron-core", "allgather", 8),
    ],
)
def test_a_dispatcher_that_sends_tokens_sorts_them_once_each_way(
    make_case: Callable[..., Case], stack: str, dispatcher: str | None, moved: int
) -> None:
    case = make_case(model={"moe": MIXTURE | {"dispatcher": dispatcher}})
    assert with_switches(stack_named(stack), case).permutation_bytes == moved


def test_overlap_none_turns_all_of_it_off(make_case: Callable[..., Case]) -> None:
    base = stack_named("megatron-core").model_copy(update={"overlap_tensor": True})
    stack = with_switches(base, make_case(layout={"overlap": "none (all off)"}))
    overlaps = (stack.overlap_gradients, stack.overlap_parameters, stack.overlap_tensor, stack.overlap_pipeline)
    assert overlaps == (False, False, False, False)


def test_dropout_is_that_of_the_family(make_case: Callable[..., Case]) -> None:
    base = stack_named("megatron-lm-main")
    assert with_switches(base, make_case()).dropout
    assert not with_switches(base, make_case(model={"gated_mlp": True})).dropout
    assert not with_switches(base, make_case(layout={"dropout": "0.0"})).dropout
    assert with_switches(base, make_case(model={"gated_mlp": True}, layout={"dropout": 0.1})).dropout
    assert not with_switches(stack_named("megatron-core"), make_case()).dropout


def test_megatron_s_own_layers_fuse_attention_on_request(make_case: Callable[..., Case]) -> None:
    def fused(stack: str, **layout: object) -> bool:
        return with_switches(stack_named(stack), make_case(layout=layout)).fused_attention

    assert fused("megatron-lm-main")
    assert fused("megatron-lm-main", transformer_impl="transformer_engine")
    assert not fused("megatron-lm-main", transformer_impl="local")
    assert fused("megatron-lm-main", transformer_impl="local", flash_attention=True)
    assert not fused("mindspeed")
    assert fused("mindspeed", flash_attention=True)


def test_formats_lie_over_the_stack(make_case: Callable[..., Case]) -> None:
    base = stack_named("megatron-lm-main")
    assert with_switches(base, make_case(layout={"reuse_fp32_param": True})).master_bytes == 2
    assert with_switches(base, make_case(layout={"fp8_params": "True"})).narrow_parameters
    assert not with_switches(base, make_case()).narrow_parameters
    assert with_switches(base, make_case(layout={"grad_accumulation": "fp32"})).fp16_gradient_bytes == 4


@pytest.mark.parametrize(
    ("recompute", "detail", "modules", "chosen", "layers"),
    [
        ("selective", "selective ([moe_act])", (RecomputedModule.ACTIVATION,), "selective", None),
        (
            "selective",
            "selective (norm, act)",
            (RecomputedModule.NORMS, RecomputedModule.ACTIVATION),
            "selective",
            None,
        ),
        ("selective", "selective (attention core)", (RecomputedModule.ATTENTION_CORE,), "selective", None),
        ("none", "none + activation function recompute", (RecomputedModule.ACTIVATION,), "selective", None),
        ("none", "none (not stated)", (), "none", None),
        ("selective", "selective layer (every 2nd block)", (), "full", 2),  # of 8 layers in two stages
        ("none", "none (every 2nd block)", (), "none", None),
        ("full", "full (block, 5 layers)", (), "full", 5),
        ("full", "full (method block, num-layers 12)", (), "full", 12),
        ("full", "full (method uniform, num-layers 1)", (), "full", None),
    ],
)
def test_recomputation_is_read_by_module_and_by_layer(
    make_case: Callable[..., Case],
    recompute: str,
    detail: str,
    modules: tuple[RecomputedModule, ...],
    chosen: str,
    layers: int | None,
) -> None:
    case = make_case(layout={"recompute": recompute, "recompute_detail": detail})
    base = stack_named("fsdp2")
    assert recomputed_modules(case.layout) == modules
    assert with_switches(base, case).selective_recompute == (modules or base.selective_recompute)
    assert only_layout(case).recompute == chosen
    assert only_layout(case).recompute_layers == layers


@pytest.mark.parametrize(
    ("padded", "factor", "load"), [(True, 1.5, 1.5), (False, 1.5, 1.0), (False, 0.5, 0.5), (True, 0.5, 0.5)]
)
def test_a_capacity_pads_or_drops(make_case: Callable[..., Case], *, padded: bool, factor: float, load: float) -> None:
    moe = MIXTURE | {"capacity_factor": factor, "padded_to_capacity": padded}
    model, assumptions = transformer_of_case(make_case(model={"moe": moe}).model)
    assert all(isinstance(layer.mlp, Experts) and layer.mlp.load == load for layer in model.layers)
    assert ("balanced" in " ".join(assumptions)) is not padded


def test_a_measurement_is_compared_with_what_its_source_reads(make_case: Callable[..., Case]) -> None:
    def predicted(framework: str, **measured: object) -> Predicted:
        # A small vocabulary leaves most memory on the first stage.
        read = {"peak_memory_bytes": 1, **measured}
        case = make_case(framework=framework, measured=read, model={"vocab": 128}, layout={"zero_stage": 1})
        (found,) = estimate([case])
        assert found.predicted is not None
        return found.predicted

    megatron = predicted("Megatron-LM (main)", peak_memory_kind="allocated")
    assert megatron.reported_memory_bytes == megatron.peak_memory_bytes
    last = predicted("Megatron-LM (main)", peak_memory_kind="allocated", peak_memory_rank="last")
    assert last.peak_memory_bytes == megatron.peak_memory_bytes
    assert last.reported_memory_bytes != megatron.peak_memory_bytes
    first = predicted("MindSpeed-LLM", peak_memory_kind="allocated")
    assert first.reported_memory_bytes[MemoryKind.ALLOCATED] < first.peak_memory_bytes[MemoryKind.ALLOCATED]
    driver = predicted("MindSpeed-LLM", peak_memory_kind="nvidia_smi")
    assert driver.reported_memory_bytes == driver.peak_memory_bytes


def only_layout(case: Case) -> Layout:
    candidates, _ = layouts_of_case(case)
    (layout,) = candidates
    return layout


def test_a_full_layout_is_the_only_candidate(make_case: Callable[..., Case]) -> None:
    assert only_layout(make_case()) == Layout(
        tensor_parallel=2, pipeline_parallel=2, data_parallel=4, zero_shard=4, micro_batch=2
    )


def test_an_open_recompute_and_micro_batch_give_all_choices(make_case: Callable[..., Case]) -> None:
    candidates, _ = layouts_of_case(make_case(layout={"recompute": None}, batch={"micro_batch": None}))
    chosen = {(layout.recompute, layout.micro_batch) for layout in candidates}
    assert chosen == {(recompute, size) for recompute in Recompute for size in (1, 2, 4, 8, 16)}


def test_an_open_micro_batch_may_be_a_stage_s_share(make_case: Callable[..., Case]) -> None:
    # TorchTitan: a replica's 16 sequences are as many micro-batches as the pipeline has stages.
    case = make_case(batch={"micro_batch": None}, framework="TorchTitan")
    (layout,) = layouts_of_case(case, micro_batch_a_stage=True)[0]
    assert (layout.pipeline_parallel, layout.micro_batch) == (2, 8)
    (found,) = estimate([case])
    assert found.predicted is not None
    assert found.predicted.layout.micro_batch == 8
    assert "as many as stages" in " ".join(found.predicted.assumptions)
    told = make_case(batch={"micro_batch": 4})
    assert [each.micro_batch for each in layouts_of_case(told, micro_batch_a_stage=True)[0]] == [4]


def test_deferred_synchronisation_holds_what_fits_whole(make_case: Callable[..., Case]) -> None:
    # NeMo AutoModel: whole where the device has room for it, sharded layer by layer where it hasn't.
    sharded = {"zero_stage": 3, "pipeline_parallel": 1, "tensor_parallel": 1, "data_parallel": 16}
    held, layered = layouts_of_case(make_case(layout=sharded), defers_synchronisation=True)[0]
    assert (held.gradient_shard, held.parameter_shard) == (1, 1)
    assert (layered.gradient_shard, layered.parameter_shard) == (None, None)
    for told in ({"zero_stage": 2}, {"gradient_shard_devices": 4}):
        assert len(layouts_of_case(make_case(layout=sharded | told), defers_synchronisation=True)[0]) == 1

    def chosen(hidden: int, framework: str) -> Layout:
        wide = {"hidden": hidden, "heads": 16, "ffn_hidden": 4 * hidden}
        (result,) = estimate([make_case(model=wide, layout=sharded, framework=framework)])
        assert result.predicted is not None
        return result.predicted.layout

    assert chosen(1024, "NeMo AutoModel").parameter_shard == 1
    assert chosen(16384, "NeMo AutoModel").parameter_shard is None
    assert chosen(1024, "TorchTitan").parameter_shard is None


def test_megatron_cuts_experts_as_the_rest_unless_that_does_not_fit(make_case: Callable[..., Case]) -> None:
    def degree(**layout: int) -> int:
        return only_layout(make_case(model={"moe": MIXTURE}, layout=layout)).expert_tensor_parallel

    assert degree(expert_parallel=4) == 2
    assert degree(expert_parallel=8) == 1
    assert degree(expert_parallel=2, expert_tensor_parallel=1) == 1
    assert only_layout(make_case()).expert_tensor_parallel == 1


def test_layout_details(make_case: Callable[..., Case]) -> None:
    interleaved = only_layout(make_case(layout={"virtual_pipeline": 2, "schedule": "1f1b"}))
    assert interleaved.schedule is Schedule.INTERLEAVED
    assert only_layout(make_case(layout={"schedule": "1f1b-interleaved"})).schedule is Schedule.ONE_F_ONE_B
    assert only_layout(make_case(layout={"zero_stage": 1, "zero_shard_devices": 2})).zero_shard == 2
    levels = {"gradient_shard_devices": 2, "parameter_shard_devices": 4, "backward_shard_devices": 1}
    three = only_layout(make_case(layout={"zero_stage": 3} | levels))
    assert (three.gradient_shard, three.parameter_shard, three.backward_shard) == (2, 4, 1)
    split = {"context_parallel": 2, "data_parallel": 2, "context_parallel_method": "ulysses_cp_algo"}
    assert only_layout(make_case(layout=split)).context_method is ContextMethod.ULYSSES
    gathered = split | {"context_parallel_method": "all_gather"}
    assert only_layout(make_case(layout=gathered)).context_method is ContextMethod.ALL_GATHER
    assert only_layout(make_case(layout=split)).zero_shard == 4
    derived = only_layout(make_case(layout={"data_parallel": None}))
    assert derived.data_parallel == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layout": {"data_parallel": 3}}, "multiply to 12, not to cluster.devices 16"),
        ({"layout": {"tensor_parallel": 3, "data_parallel": None}}, "not to cluster.devices 16"),
        ({"layout": {"virtual_pipeline": 6}}, "8 layers can't be cut into 12 chunks"),
        ({"layout": {"expert_parallel": 2}}, "without experts"),
        ({"model": {"moe": MIXTURE}, "layout": {"expert_parallel": 3}}, "8 experts aren't shared evenly"),
        ({"model": {"moe": MIXTURE | {"experts": 16}}, "layout": {"expert_parallel": 16}}, "doesn't divide the 8"),
        ({"layout": {"zero_shard_devices": 3}}, "ZeRO over 3 devices"),
        ({"layout": {"gradient_shard_devices": 3}}, "3 devices don't divide the 4 of zero_shard"),
        ({"layout": {"parameter_shard_devices": 2, "backward_shard_devices": 4}}, "4 devices don't divide the 2 of"),
        ({"batch": {"global_batch": 62}}, "a batch of 62 isn't shared evenly by data parallelism 4"),
        ({"batch": {"micro_batch": 3}}, "share of 16 isn't whole micro-batches of 3"),
    ],
)
def test_degrees_that_do_not_fit_are_told(make_case: Callable[..., Case], changes: dict[str, Any], words: str) -> None:
    case = make_case(**changes)
    with pytest.raises(InputError, match=words):
        layouts_of_case(case)
    (item,) = estimate([case])
    assert item.predicted is None
    assert words in (item.error or "")


def test_a_misspelt_device_gets_the_nearest_names(make_case: Callable[..., Case]) -> None:
    (item,) = estimate([make_case(cluster={"device": "a100-smx-80gb"})])
    assert item.error is not None
    assert "a100-sxm-80gb" in item.error


def test_a_device_without_the_precision_says_so(make_case: Callable[..., Case]) -> None:
    (item,) = estimate([make_case(precision="nvfp4")])
    assert item.predicted is None
    assert "nvfp4" in (item.error or "")


def test_an_open_recompute_is_the_least_that_fits(make_case: Callable[..., Case]) -> None:
    heavy = {"layers": 32, "hidden": 8192, "heads": 64, "ffn_hidden": 32768, "sequence_length": 8192}
    alone = {"tensor_parallel": 8, "pipeline_parallel": 2, "data_parallel": 1}
    options = {
        recompute: estimate([make_case(model=heavy, layout=alone | {"recompute": recompute}, batch={"micro_batch": 4})])
        for recompute in (None, "none", "selective", "full")
    }
    found = {recompute: items[0].predicted for recompute, items in options.items()}
    least = next(name for name in ("none", "selective", "full") if (item := found[name]) is not None and item.fits)
    opened, named = found[None], found[least]
    assert opened is not None
    assert named is not None
    assert least != "none"
    assert opened.layout == named.layout
    assert any(f"recompute isn't given: {least}" in text for text in opened.assumptions)


def test_an_open_micro_batch_is_the_fastest_that_fits(make_case: Callable[..., Case]) -> None:
    (opened,) = estimate([make_case(batch={"micro_batch": None})])
    named = estimate([make_case(batch={"micro_batch": size}) for size in (1, 2, 4, 8, 16)])
    times = [item.predicted.step_time_s for item in named if item.predicted is not None and item.predicted.fits]
    assert opened.predicted is not None
    assert opened.predicted.step_time_s == min(times)
    assert any("micro-batch isn't given" in text for text in opened.predicted.assumptions)


def test_nothing_fits_is_an_answer_with_the_smallest_layout(make_case: Callable[..., Case]) -> None:
    huge = {"layers": 96, "hidden": 12288, "heads": 96, "ffn_hidden": 49152}
    (item,) = estimate([make_case(model=huge, layout={"recompute": None})])
    assert item.predicted is not None
    assert not item.predicted.fits
    assert item.predicted.layout.recompute is Recompute.FULL
    assert any("though nothing fits" in text for text in item.predicted.assumptions)


def test_files_and_cases_mix_and_keep_their_order(tmp_path: Path, case_document: MakeDocument) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump([case_document(id="a"), case_document(id="b")]))
    seen: list[str] = []

    def watch(items: Any) -> Any:  # noqa: ANN401 - whatever the library hands over
        for item in items:
            seen.append(item.case.id)
            yield item

    results = estimate([Case.model_validate(case_document(id="c")), file], watch=watch)
    assert [item.case.id for item in results] == seen == ["c", "a", "b"]
    assert [item.file for item in results] == ["", str(file), str(file)]


def test_reference_stacks_and_clusters_of_every_device_exist() -> None:
    for name in entry_names("devices"):
        machine = machine_named(name)
        assert machine.reference.tiers
        assert machine.stack.name in entry_names("stacks")
