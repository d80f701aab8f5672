"""Which axis is outermost: what it brings near, where it is a choice, and what is proved over both orders."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from emitted_plans import plan_named
from plain_space import orders_of

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Axis, RecomputeBy, Splits, StackEntry
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.pipeline_messages import pipeline_communication_s
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.sharding import data_group, expert_data_group
from meshwright.costmodels.strides import pipeline_stride
from meshwright.planner import Plan, check_plan, plan
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.case_layout import layouts_of_case
from meshwright.planner.consistency import contradictions
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.search import search
from meshwright.planner.targets import LAUNCHERS, Target, unrestricted

MakeJob = Callable[..., Job]
MakeCluster = Callable[..., ClusterEntry]
MakeModel = Callable[..., ModelEntry]
USUAL, OTHER = AxisOrder
LARGE = 10**18
WIDE = {"hidden": 4096, "heads": 32, "kv_heads": 8, "ffn_hidden": 14336}
MIXTURE = WIDE | {"experts": {"experts": 4, "top_k": 2, "ffn_hidden": 2048}}


def plainly(job: Job) -> Job:
    """Give a job of few layouts beside those of the mesh."""
    update = {"schedules": (Schedule.ONE_F_ONE_B,), "splits": Splits.EVEN, "recompute_by": RecomputeBy.ALL}
    return replace(job, stack=job.stack.model_copy(update=update))


def test_groups_lie_as_ranks_are_numbered() -> None:
    """Three tensor ranks, four stages, five replicas; experts take the three."""
    usual = Layout(tensor_parallel=3, pipeline_parallel=4, data_parallel=5, expert_parallel=3)
    table = LayoutTable.of([usual, replace(usual, axis_order=OTHER)])
    assert pipeline_stride(table).tolist() == [15, 3]
    assert data_group(table).stride.tolist() == [3, 12]
    assert expert_data_group(table).stride.tolist() == [3, 12]
    assert data_group(table).size.tolist() == expert_data_group(table).size.tolist() == [5, 5]


def test_stages_send_within_a_node_by_hand(round_job: MakeJob) -> None:
    """Nodes of 4 at 100 GB/s, half sustained, a fabric of 10: four stages are neighbours, or four devices apart."""
    job = round_job(sequence_length=10**6)
    usual = Layout(pipeline_parallel=4, data_parallel=4)
    table = LayoutTable.of([usual, replace(usual, axis_order=OTHER)])
    far_s, near_s = pipeline_communication_s(job, table, np.array([4.0, 4.0]), np.ones(2))[0]
    message_bytes = 2 * 1024 * 10**6
    messages = 2 * 4 + 2 * 3  # of four micro-batches, there and back, and to fill and drain
    assert near_s == pytest.approx(messages * message_bytes / 50e9, rel=0.01)
    assert far_s == pytest.approx(messages * message_bytes / 5e9, rel=0.01)


def layouts_of(job: Job, *, zero_stages: Iterable[int], micro_batches: Iterable[int]) -> list[Layout]:
    """Give layouts of tensor, pipeline and data parallelism in both orders, with what orders don't bear on left out."""
    devices, found = job.cluster.devices, []
    for tensor, pipeline in itertools.product((1, 2, 4, 8), range(1, len(job.model.layers) + 1)):
        data, rest = divmod(devices, tensor * pipeline)
        orders = list(AxisOrder) if pipeline > 1 and data > 1 else [USUAL]
        experts = {(tensor, 1), (1, tensor)} if job.model.has_experts else {(1, 1)}
        if rest or (tensor > 1 and Axis.TENSOR not in job.stack.axes):
            continue
        for order, (expert, expert_tensor), zero_stage, micro_batch, recompute in itertools.product(
            orders, experts, zero_stages, micro_batches, Recompute
        ):
            if job.global_batch % (data * micro_batch) == 0:
                found.append(
                    Layout(
                        tensor_parallel=tensor,
                        sequence_parallel=tensor > 1,
                        pipeline_parallel=pipeline,
                        data_parallel=data,
                        axis_order=order,
                        expert_parallel=expert,
                        expert_tensor_parallel=expert_tensor,
                        zero_stage=zero_stage,
                        zero_shard=data,
                        micro_batch=micro_batch,
                        recompute=recompute,
                    )
                )
    return found


@pytest.mark.parametrize("model", [WIDE | {"tied_embeddings": True}, MIXTURE])
@pytest.mark.parametrize("devices", [8, 32, 48])
def test_where_stages_come_no_nearer_the_other_order_is_no_faster(
    devices: int, model: dict[str, object], toy_job: MakeJob
) -> None:
    job = toy_job(devices, global_batch=48, layers=12, **model)
    every = layouts_of(job, zero_stages=range(4), micro_batches=(1, 3))
    moot = [
        layout
        for layout in every
        if layout.axis_order is OTHER
        if orders_of(job, layout.tensor_parallel, 1, layout.pipeline_parallel) == [USUAL]
    ]
    assert len(moot) > 20
    usual_s, other_s = (
        predict_time(job, LayoutTable.of([replace(layout, axis_order=order) for layout in moot])).step_time_s
        for order in AxisOrder
    )
    assert (usual_s <= other_s * (1 + 1e-9)).all()


@pytest.mark.parametrize(("sequences", "best"), [(4, USUAL), (512, OTHER)])
def test_the_best_order_is_proved(sequences: int, best: AxisOrder, toy_job: MakeJob) -> None:
    """Memory asks for eight stages of one layer: few micro-batches send less than gradients do, many send more."""
    job = plainly(toy_job(16, global_batch=sequences, sequence_length=4096, layers=8, **WIDE))
    node, fabric = job.cluster.tiers
    slow = replace(fabric, bandwidth_bytes_per_s=fabric.bandwidth_bytes_per_s / 20)
    stack = job.stack.model_copy(update={"axes": (Axis.PIPELINE,)})
    job = replace(job, stack=stack, cluster=replace(job.cluster, tiers=(node, slow)))
    layouts = layouts_of(job, zero_stages=[0], micro_batches=(1, 2, 4, 8, 16, 32, 64, 128, 256))
    table = LayoutTable.of(layouts)
    memory = predict_memory(job, table).nvidia_smi_bytes
    time_s = predict_time(job, table).step_time_s
    limit = int(1.001 * memory[(table.pipeline_parallel == 8) & (table.micro_batch == 1)].max())
    fits = np.flatnonzero(memory <= limit)
    limits = Limits(fix={"zero_stage": 0})
    found = search([job], Question(objective=Objective.TIME, memory_limit_bytes=limit, top=0, limits=limits))
    assert found.best.step_time_s == found.lower_bound == float(f"{time_s[fits].min():.9g}")
    assert found.best.layout.pipeline_parallel == 8
    assert found.best.layout.axis_order is best


def test_free_to_choose_is_the_better_of_both(toy_job: MakeJob) -> None:
    """And where both are as good, the usual order is given."""
    for model in (WIDE, MIXTURE):
        job = plainly(toy_job(16, global_batch=64, layers=8, **model))
        found = {
            order: search(
                [job],
                Question(
                    objective=Objective.TIME,
                    memory_limit_bytes=20 * 2**30,
                    top=0,
                    limits=Limits(fix={"pipeline_parallel": 2, **({"axis_order": str(order)} if order else {})}),
                ),
            )
            for order in (None, *AxisOrder)
        }
        times = {order: result.value for order, result in found.items()}
        assert times[None] == min(times[USUAL], times[OTHER])
        assert found[OTHER].best.layout.axis_order is OTHER
        assert found[None].best.layout.axis_order is (USUAL if times[USUAL] <= times[OTHER] else OTHER)


def test_limits_on_the_order_don_t_bear_on_meshes_of_one_order(toy_job: MakeJob) -> None:
    job = plainly(toy_job(16, global_batch=16))
    question = Question(objective=Objective.TIME, memory_limit_bytes=LARGE, top=50)

    def meshes(limits: Limits) -> set[tuple[int, int, AxisOrder]]:
        found = search([job], replace(question, limits=limits))
        layouts = [one.layout for one in (found.best, *found.alternatives)]
        return {
            (min(layout.pipeline_parallel, 2), min(layout.data_parallel, 2), layout.axis_order) for layout in layouts
        }

    assert meshes(Limits(forbid={"axis_order": (str(USUAL),)})) == {(1, 1, USUAL), (1, 2, USUAL), (2, 1, USUAL)} | {
        (2, 2, OTHER)
    }
    assert meshes(Limits(fix={"axis_order": str(OTHER)})) == {(2, 2, OTHER)}


@pytest.fixture(scope="module")
def made(toy_model: MakeModel, toy_cluster: MakeCluster) -> Plan:
    """Give a plan of four stages, with data outermost."""
    limits = Limits(fix={"axis_order": str(OTHER), "pipeline_parallel": 4, "micro_batch": 1, "schedule": "1f1b"})
    return plan(toy_model(layers=8), toy_cluster(16), global_batch=32, sequence_length=2048, top=1, limits=limits)


def test_a_plan_of_the_other_order(made: Plan) -> None:
    assert made.layout.axis_order is OTHER
    assert made.mesh.order == ("tensor", "context", "pipeline", "data")
    assert made.mesh.expert_order == ("expert_tensor", "expert", "pipeline", "expert_data")
    groups, layout = made.mesh.groups, made.layout
    assert groups["pipeline"].stride == layout.tensor_parallel
    assert groups["data"].stride == groups["data_context"].stride == layout.tensor_parallel * layout.pipeline_parallel
    assert list(contradictions(made)) == []
    assert check_plan(made) == ()


def test_a_plan_that_says_another_order_contradicts_itself(made: Plan) -> None:
    mesh = made.mesh.model_copy(update={"order": ("tensor", "context", "data", "pipeline")})
    ((path, told),) = contradictions(made.model_copy(update={"mesh": mesh}))
    assert path == "mesh.order"
    assert "by tensor, context, pipeline, data; those of experts by expert_tensor, expert, pipeline, expert" in told
    tensor = made.layout.tensor_parallel
    by_context = made.layout.model_copy(update={"context_parallel": 2, "data_parallel": 2 // tensor or 1})
    assert "layout.axis_order" in [path for path, _ in contradictions(made.model_copy(update={"layout": by_context}))]


@pytest.mark.parametrize("target", Target)
def test_what_launchers_number(target: Target) -> None:
    """Megatron-Core and MindSpeed have --use-tp-pp-dp-mapping; meshes of TorchTitan and DeepSpeed have one order."""
    stack = stack_named(LAUNCHERS[target].stack)
    both = target in {Target.MEGATRON_CORE, Target.MINDSPEED}
    assert stack.axis_orders == (tuple(AxisOrder) if both else (USUAL,))
    assert unrestricted(stack).axis_orders == tuple(AxisOrder)


@pytest.mark.parametrize("orders", [[], ["tp-cp-pp-dp"]])
def test_a_stack_numbers_ranks_in_the_usual_order_at_least(orders: list[str]) -> None:
    document = stack_named("megatron-core").model_dump(mode="json") | {"axis_orders": orders}
    with pytest.raises(InputError, match="axis_orders: must hold tp-cp-dp-pp"):
        validate(StackEntry, document, file="stack.yaml")


def test_a_case_says_its_order(case_document: Callable[..., dict[str, Any]]) -> None:
    def said(**layout: object) -> tuple[AxisOrder, tuple[str, ...]]:
        layouts, assumptions = layouts_of_case(Case.model_validate(case_document(layout=layout)))
        return layouts[0].axis_order, assumptions

    assert said() == (USUAL, ())
    assert said(axis_order=str(OTHER)) == (OTHER, ())
    order, assumptions = said(axis_order=str(OTHER), context_parallel=2, data_parallel=2)
    assert order is USUAL
    assert any("pipeline is taken to be outermost" in assumption for assumption in assumptions)


@pytest.mark.parametrize(("expert", "expert_tensor", "kept"), [(2, 1, True), (1, 2, True), (4, 1, False)])
def test_a_case_s_experts_have_the_replicas_of_the_rest(
    expert: int, expert_tensor: int, *, kept: bool, case_document: Callable[..., dict[str, Any]]
) -> None:
    layout = {"axis_order": str(OTHER), "expert_parallel": expert, "expert_tensor_parallel": expert_tensor}
    moe = {"experts": 4, "top_k": 2, "expert_ffn_hidden": 1024}
    case = Case.model_validate(case_document(layout=layout, model={"moe": moe}))
    if kept:
        assert layouts_of_case(case)[0][0].axis_order is OTHER
    else:
        with pytest.raises(InputError, match=r"layout\.axis_order: with data outermost.* is 4, not 2"):
            layouts_of_case(case)


def test_torchtitan_has_one_order() -> None:
    usual = plan_named("gqa-tensor")
    other = usual.model_copy(update={"layout": usual.layout.model_copy(update={"axis_order": OTHER})})
    of_torchtitan = EMITTERS[EmitTarget.TORCHTITAN].obstacles
    (more,) = set(map(repr, of_torchtitan(other))) - set(map(repr, of_torchtitan(usual)))
    assert "layout.axis_order" in more
    (obstacle,) = (one for one in of_torchtitan(other) if one.path == "layout.axis_order")
    assert obstacle.instead == ({"axis_order": USUAL},)
    assert not any(one.path == "layout.axis_order" for one in EMITTERS[EmitTarget.MEGATRON].obstacles(other))
