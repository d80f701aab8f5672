"""Plans of small models on a small cluster of three tiers, between which state moves in tests."""

from typing import Any

from verified_plans import MIXTURE, golden_plan, plan_with

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.layout import Layout
from meshwright.planner import Plan
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.plan_schema import Embedded, Inputs

NODE, RACK, DEVICES = 2, 8, 32
BATCH = 48


def small_base(*, stack: str = "megatron-core", **model: Any) -> Plan:  # noqa: ANN401 - fields of a model
    """A plan whose inputs are those of a small mixture, on 32 devices in nodes of 2 and racks of 8."""
    base = golden_plan(MIXTURE)
    entry = base.inputs.model.entry
    assert entry.experts is not None
    small: dict[str, Any] = {
        "name": "small-mixture",
        "layers": 4,
        "hidden": 8,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 2,
        "ffn_hidden": 12,
        "vocab": 300,
        "experts": entry.experts.model_copy(update={"experts": 4, "ffn_hidden": 4, "dense_layers": 1}),
    }
    cluster = base.inputs.cluster.entry
    inner, outer = cluster.tiers
    tiers = (
        inner.model_copy(update={"group": NODE}),
        outer.model_copy(update={"name": "rack", "group": RACK}),
        outer,
    )
    inputs = Inputs(
        job=base.inputs.job,
        model=Embedded[ModelEntry](from_catalog=False, entry=entry.model_copy(update=small | model)),
        cluster=Embedded[ClusterEntry](
            from_catalog=False,
            entry=cluster.model_copy(update={"devices": DEVICES, "devices_per_node": NODE, "tiers": tiers}),
        ),
        device=base.inputs.device,
        stack=Embedded[StackEntry](from_catalog=True, entry=stack_named(stack)),
    )
    return base.model_copy(update={"inputs": inputs})


def small_plan(base: Plan, **fields: Any) -> Plan:  # noqa: ANN401 - of Layout
    """A plan of a small base under a layout of these fields."""
    return plan_with(base, Layout(**fields), global_batch=BATCH)


def given_plan(base: Plan, **fields: Any) -> Plan:  # noqa: ANN401 - of Layout
    """The same as the planner writes it, of which all sections agree."""
    job = base.inputs.job.model_copy(update={"global_batch": BATCH})
    return plan_of_layout(base.inputs.model_copy(update={"job": job}), Layout(**fields))


BASES = {
    "megatron": small_base(),
    "fsdp": small_base(stack="fsdp2"),
    "tied": small_base(tied_embeddings=True),
    "biased": small_base(mlp_bias=True, qkv_bias=True, output_bias=True, experts=None),
}
OLD = given_plan(
    BASES["megatron"],
    tensor_parallel=2,
    sequence_parallel=True,
    pipeline_parallel=2,
    data_parallel=4,
    expert_parallel=4,
    zero_stage=1,
    zero_shard=4,
)
NEW = given_plan(BASES["megatron"], pipeline_parallel=4, data_parallel=4, expert_parallel=2, zero_stage=1, zero_shard=4)
