"""What moves from one plan to another: replayed on real shards, against brute force, and by hand."""

import heapq
import json
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited_documents import change
from hypothesis import given, settings
from hypothesis import strategies as st
from resharded_plans import BASES, DEVICES, NEW, NODE, OLD, RACK, small_plan
from small_models import small_model

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.lookup import find_model
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.parameters import mtp_parameters, total_parameters
from meshwright.costmodels.transformer import Transformer, transformer_of
from meshwright.planner import Plan, plan
from meshwright.planner.ledger.parameters import chunk_units
from meshwright.planner.ledger.workload import Chunk
from meshwright.planner.resharding import moves_document, moves_json, reshard
from meshwright.planner.resharding.delivery import Pairs, delivered, pairs_of
from meshwright.planner.resharding.sources import Sets, least_busy_quotas, picked
from meshwright.planner.resharding.tensors import Split, tensors_of
from meshwright.planner.verification.resharding import replayed
from meshwright.planner.verification.resharding.shards import held
from meshwright.planner.verification.resharding.tensors import tensors_of as checked_tensors

MODELS = sorted(path.stem for path in (Path(__file__).parents[1] / "catalog" / "models").glob("*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_tensors_have_the_parameters_that_the_cost_model_counts(name: str) -> None:
    model = transformer_of(find_model(name))
    tensors = tensors_of(model)
    assert sum(tensor.elements for tensor in tensors) == total_parameters(model) + mtp_parameters(model)
    assert len({tensor.name for tensor in tensors}) == len(tensors)


@pytest.mark.parametrize("model", [small_model(), small_model(experts=True, shared=True)])
def test_tensors_are_those_of_the_reference_launcher(model: Transformer) -> None:
    everything = Chunk(index=0, layers=tuple(range(len(model.layers))), recomputed=None, first=True, last=True)
    theirs = {
        f"{unit.name}.{parameter.name}": (parameter.shape, 0 if parameter.expert else parameter.tensor_dim)
        for unit in chunk_units(model, everything)
        for parameter in unit.parameters
    }
    cut = {Split.WHOLE: None, Split.COLUMNS: 1}
    ours = {tensor.name: (tensor.shape, cut.get(tensor.split, 0)) for tensor in tensors_of(model)}
    assert ours == theirs


def document_of(old: Plan | None, new: Plan | None) -> dict[str, Any]:
    """The document of moves, read back from its text."""
    document: dict[str, Any] = json.loads(moves_json(moves_document(reshard(old, new), old="old", new="new")))
    return document


def elements_of(document: dict[str, Any], state: str) -> int:
    groups = [group for group in document["groups"] if state in group["states"]]
    return sum(len(group["tensors"]) * int(np.prod(group["shape"])) for group in groups)


@st.composite
def layouts(draw: st.DrawFn, *, experts: bool) -> dict[str, Any]:
    """Fields of a layout of 32 devices at most that the small models can have, on every axis."""
    pipeline, chunks = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1), (4, 1)]))
    tensor = draw(st.sampled_from([1, 2, 4]))
    context = draw(st.sampled_from([1, 1, 2]))
    room = DEVICES // (pipeline * tensor * context)
    data = draw(st.sampled_from([size for size in (1, 2, 3, 4, 6, 8) if size <= room]))
    fields: dict[str, Any] = {
        "tensor_parallel": tensor,
        "sequence_parallel": tensor > 1,
        "context_parallel": context,
        "pipeline_parallel": pipeline,
        "virtual_pipeline": chunks,
        "data_parallel": data,
    }
    if pipeline > 1:
        fields |= draw(schedules(pipeline, chunks))
    stage = tensor * context * data
    if experts:
        pairs = [(e, t) for e in (1, 2, 4) for t in (1, 2, 4) if stage % (e * t) == 0]
        fields["expert_parallel"], fields["expert_tensor_parallel"] = draw(st.sampled_from(pairs))
    ranks = fields.get("expert_parallel", 1) * fields.get("expert_tensor_parallel", 1)
    if context == 1 and (not experts or ranks == tensor) and draw(st.booleans()):
        fields["axis_order"] = AxisOrder.DATA_OUTERMOST
    return fields | draw(shards(data * context))


@st.composite
def schedules(draw: st.DrawFn, pipeline: int, chunks: int) -> dict[str, Any]:
    if chunks > 1:
        return {"schedule": draw(st.sampled_from([Schedule.INTERLEAVED, Schedule.V_HALF]))}
    if pipeline in (2, 4) and draw(st.booleans()):
        return {"schedule": Schedule.DUAL_PIPE}
    splits = {2: (3, 1), 3: (1, 2, 1), 4: (1, 1, 1, 1)}
    vocabulary = draw(st.booleans())
    return {"split": splits[pipeline] if draw(st.booleans()) else (), "vocabulary_parallel": vocabulary}


@st.composite
def shards(draw: st.DrawFn, replicas: int) -> dict[str, Any]:
    stage = draw(st.sampled_from([0, 1, 2, 3]))
    if not stage:
        return {"zero_stage": 0}
    zero = draw(st.sampled_from([size for size in range(1, replicas + 1) if replicas % size == 0]))
    inner = st.sampled_from([None, *(size for size in range(1, zero + 1) if zero % size == 0)])
    gradient = draw(inner) if stage > 1 else None
    return {
        "zero_stage": stage,
        "zero_shard": zero,
        "gradient_shard": gradient,
        "parameter_shard": draw(inner) if stage == 3 else None,
    }


@st.composite
def pairs_of_plans(draw: st.DrawFn) -> tuple[Plan, Plan]:
    name = draw(st.sampled_from(sorted(BASES)))
    experts = BASES[name].inputs.model.entry.experts is not None
    old, new = (small_plan(BASES[name], **draw(layouts(experts=experts))) for _ in range(2))
    return old, new


@settings(max_examples=25)
@given(pairs_of_plans())
def test_every_element_ends_where_the_new_plan_wants_it(plans: tuple[Plan, Plan]) -> None:
    old, new = plans
    document = document_of(old, new)
    assert replayed(document, old, new) == ()
    model = transformer_of(old.inputs.model.entry)
    for state in ("parameter", "gradient", "momentum", "variance"):
        assert elements_of(document, state) == total_parameters(model)


@settings(max_examples=5)
@given(pairs_of_plans())
def test_a_checkpoint_is_written_once_and_read_by_all(plans: tuple[Plan, Plan]) -> None:
    old, new = plans
    written, read = document_of(old, None), document_of(None, new)
    assert replayed(written, old, None) == replayed(read, None, new) == ()
    elements = total_parameters(transformer_of(old.inputs.model.entry))
    assert elements_of(written, "variance") == elements_of(read, "parameter") == elements
    assert elements_of(written, "gradient") == 0
    assert reshard(old, None).held_bytes == sum(
        elements_of(written, state) * size for state, size in _states(written).items()
    )


def _states(document: dict[str, Any]) -> dict[str, int]:
    return {state: size for group in document["groups"] for state, size in group["states"].items()}


@pytest.mark.parametrize("column", ["source", "destination", "source_element", "destination_element"])
def test_the_replay_sees_a_wrong_number(column: str) -> None:
    document = document_of(OLD, NEW)
    for group in range(0, len(document["groups"]), 17):
        broken = deepcopy(document)
        broken["groups"][group]["moves"][column][-1] += DEVICES
        assert replayed(broken, OLD, NEW)


def test_the_replay_sees_moves_that_lack_come_twice_or_too_early() -> None:
    document = document_of(OLD, NEW)
    without, twice = deepcopy(document), deepcopy(document)
    for name, column in without["groups"][0]["moves"].items():
        column.pop()
        twice["groups"][0]["moves"][name].append(twice["groups"][0]["moves"][name][-1])
    assert any("never gets" in wrong for wrong in replayed(without, OLD, NEW))
    assert any("twice" in wrong for wrong in replayed(twice, OLD, NEW))


def test_the_replay_sees_what_is_handed_on_before_it_came() -> None:
    old, new = (small_plan(BASES["megatron"], data_parallel=size) for size in (2, 4))
    document = document_of(old, new)
    first, *others = document["rounds"]
    document["rounds"] = [first, *reversed(others)]
    for group in document["groups"]:
        group["moves"]["round"] = [number and 1 + len(others) - number for number in group["moves"]["round"]]
    assert any("hasn't got it yet" in wrong for wrong in replayed(document, old, new))


@pytest.mark.parametrize("name", MODELS)
def test_the_checker_knows_the_tensors_of_a_model(name: str) -> None:
    entry = find_model(name)
    theirs = {tensor.name: tensor.shape for tensor in tensors_of(transformer_of(entry))}
    assert checked_tensors(entry) == theirs


def edits() -> dict[str, tuple[Any, str]]:
    """Edits of a file of moves: by name what is done to the document, and what the one finding says of it."""

    def group(number: int, path: str, value: object) -> Any:  # noqa: ANN401 - a function of a document
        return lambda document: change(document, f"groups.{number}.{path}", value)

    def wider(place: list[int]) -> list[int]:
        return [place[0], place[1] + 1, place[2]]

    def nearer(place: list[int]) -> list[int]:
        return [place[0], place[1] - 1, place[2]]

    return {
        "a state": (lambda document: document["groups"][0]["states"].popitem(), "nothing moves the"),
        "a tensor": (lambda document: document["groups"][2]["tensors"].pop(), "nothing moves the"),
        "a group": (lambda document: document["groups"].pop(), "nothing moves the"),
        "a tensor twice": (group(2, "tensors", lambda names: [*names, names[0]]), "groups.2.tensors"),
        "another tensor": (group(2, "tensors", ["router"]), "the model has no router"),
        "bytes": (group(0, "states.parameter", 4), "groups.0.states.parameter: is of 2 bytes"),
        "start": (group(0, "moves.start.-1", nearer), "start"),
        "size of 0": (group(0, "moves.size.-1.1", 0), "groups.0.moves.size"),
        "size": (group(0, "moves.size.-1.1", 10**6), "reaches beyond"),
        "relayed": (group(0, "moves.relayed.-1", 3), "groups.0.moves.relayed"),
        "folded": (group(0, "folded", wider), "groups.0.folded"),
        "a later round": (group(0, "moves.round.-1", 9), "groups.0.moves.round"),
        "round 0": (group(0, "moves.round.-1", 0), "groups.0.moves.round"),
        "a negative element": (group(0, "moves.source_element.-1", -1), "groups.0.moves.source_element"),
        "a column's length": (group(0, "moves.start", lambda column: column[1:]), "differ in length"),
        "a column": (lambda document: document["groups"][0]["moves"].pop("start"), "groups.0.moves.start"),
        "all": (dict.clear, "checkpoint: Field required"),
    }


@pytest.mark.parametrize("name", edits())
def test_the_replay_tells_what_is_wrong_with_a_file(name: str) -> None:
    document = document_of(OLD, NEW)
    edit, told = edits()[name]
    edit(document)
    found = replayed(document, OLD, NEW)
    assert told in found[0]
    # A place is wrong of every tensor and state of the group, and nobody gets what belongs there.
    assert len(found) == 1 or name == "start"


def test_what_a_rank_keeps_goes_to_no_other() -> None:
    """Two ranks with copies of the same: swapped, what each keeps ends well, but isn't kept."""
    document = document_of(OLD, OLD)
    swapped = 0
    for group in document["groups"]:
        moves = group["moves"]
        rows = [row for row, place in enumerate(moves["start"]) if place == moves["start"][0]]
        if len(rows) > 1:
            one, other = rows[:2]
            ranks = moves["destination"]
            ranks[one], ranks[other] = ranks[other], ranks[one]
            swapped += 1
    assert swapped
    assert len(replayed(document, OLD, OLD)) == swapped


def test_between_steps_a_file_without_gradients_is_whole() -> None:
    document = json.loads(json.dumps(moves_document(reshard(OLD, NEW, gradients=False), old="old", new="new")))
    assert replayed(document, OLD, NEW, gradients=False) == ()
    assert any("the gradient of embedding.weight" in wrong for wrong in replayed(document, OLD, NEW))


def test_nothing_moves_between_equal_plans() -> None:
    found = reshard(OLD, OLD)
    assert found.moved_bytes == 0
    assert found.kept_bytes == found.held_bytes
    assert found.time_s == 0


def tier_bytes(old: Plan, new: Plan) -> dict[str, int]:
    """The bytes that have to enter, element by element: of instances that want one and lack it, all but the first
    one in the instance around them, where that lacks it too."""
    sizes = {"parameter": 2, "gradient": 4, "master": 4, "momentum": 4, "variance": 4}
    totals = {"nvlink": 0, "rack": 0, "infiniband": 0}
    for tensor in tensors_of(transformer_of(old.inputs.model.entry)):
        for state, size in sizes.items():
            have = np.zeros((DEVICES, tensor.elements), dtype=bool)
            want = np.zeros_like(have)
            for whose, table in ((old, have), (new, want)):
                for rank in range(whose.mesh.devices):
                    numbers = held(whose, rank, tensor.name, tensor.shape, state)
                    if numbers is not None:
                        table[rank, numbers[numbers >= 0]] = True
            for tier, (inner, outer) in {
                "nvlink": (1, NODE),
                "rack": (NODE, RACK),
                "infiniband": (RACK, DEVICES),
            }.items():
                lacking = grouped(want, inner) & ~grouped(have, inner)
                entered = lacking.reshape(DEVICES // outer, -1, tensor.elements).any(axis=1)
                first = entered & ~grouped(have, outer)
                totals[tier] += size * int(lacking.sum() - first.sum())
    return totals


def grouped(table: np.ndarray[Any, np.dtype[np.bool_]], size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(table.reshape(DEVICES // size, size, -1).any(axis=1))


@settings(max_examples=6)
@given(pairs_of_plans())
def test_no_tier_carries_more_than_it_has_to(plans: tuple[Plan, Plan]) -> None:
    old, new = plans
    if old.inputs.stack.entry.master_bytes:
        found = {each.tier: each.bytes for each in reshard(old, new).traffic}
        assert {tier: size for tier, size in tier_bytes(old, new).items() if size} == found


def least_crossings(have: set[int], want: set[int], groups: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """The fewest copies over each tier, slowest first, by a search of all orders of copying, any device handing on."""
    start = frozenset(have)
    queue: list[tuple[tuple[int, ...], list[int]]] = [((0,) * len(groups), sorted(start))]
    done: set[frozenset[int]] = set()
    while True:
        cost, held_by = heapq.heappop(queue)
        holders = frozenset(held_by)
        if want <= holders:
            return cost
        if holders in done:
            continue
        done.add(holders)
        for source in holders:
            for target in set(range(devices)) - holders:
                tier = next(level for level, group in enumerate(groups) if source // group == target // group)
                added = tuple(count + (len(groups) - 1 - level == tier) for level, count in enumerate(cost))
                heapq.heappush(queue, (added, sorted(holders | {target})))


@settings(max_examples=40)
@given(st.sets(st.integers(0, 7), min_size=1), st.sets(st.integers(0, 7), min_size=1))
def test_copies_over_each_tier_are_the_fewest_of_all_ways(have: set[int], want: set[int]) -> None:
    groups = (2, 4, 8)
    rounds = delivered(one_atom(have), one_atom(want), np.array([1]), groups)
    counts = {each.tier: len(each.atom) for each in rounds}
    assert tuple(counts.get(tier, 0) for tier in (2, 1, 0)) == least_crossings(have, want, groups, 8)


def one_atom(devices: set[int]) -> Pairs:
    return pairs_of(np.zeros(len(devices), dtype=np.int64), np.array(sorted(devices)), devices=8)


@st.composite
def given_sets(draw: st.DrawFn) -> Sets:
    members = draw(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=6))
    sizes = np.array([len(each) for each in members])
    amounts = draw(st.lists(st.integers(1, 100), min_size=len(members), max_size=len(members)))
    return Sets(
        of=np.arange(len(members)),
        start=np.cumsum(sizes) - sizes,
        size=sizes,
        members=np.array([rank for each in members for rank in sorted(each)]),
        bytes=np.array(amounts, dtype=float),
    )


@settings(max_examples=60)
@given(given_sets())
def test_the_busiest_sender_is_as_idle_as_any_way_allows(sets: Sets) -> None:
    """By duality: some ranks alone can serve some sets, and share them evenly at the best."""
    quotas, busiest = least_busy_quotas(sets)
    bounds = [
        sum(
            amount
            for amount, start, size in zip(sets.bytes, sets.start, sets.size, strict=True)
            if set(sets.members[start : start + size]) <= set(ranks)
        )
        / count
        for count in range(1, 7)
        for ranks in combinations(range(6), count)
    ]
    assert busiest == pytest.approx(max(bounds))
    assert np.add.reduceat(quotas, sets.start) == pytest.approx(sets.bytes)


def test_transfers_are_handed_out_as_the_quotas_say() -> None:
    sets = Sets(
        of=np.zeros(8, dtype=np.int64),
        start=np.array([0]),
        size=np.array([3]),
        members=np.array([4, 5, 6]),
        bytes=np.array([80.0]),
    )
    served = picked(sets, np.array([20.0, 0.0, 60.0]), np.full(8, 10))
    assert served.tolist() == [0, 0, 2, 2, 2, 2, 2, 2]


def test_a_second_replica_on_other_nodes_by_hand() -> None:
    """From 2 replicas on a node to 4 on two: of all state a copy crosses, half of it from each, then goes both ways."""
    base = BASES["megatron"]
    found = reshard(small_plan(base, data_parallel=2), small_plan(base, data_parallel=4))
    state = total_parameters(transformer_of(base.inputs.model.entry)) * (2 + 4 + 12)
    rack, nvlink = found.traffic
    assert (rack.tier, rack.bytes, nvlink.tier, nvlink.bytes) == ("rack", state, "nvlink", state)
    assert rack.least_busiest_bytes == pytest.approx(state / 2)
    embedding = 300 * 8 * (2 + 4 + 12)  # the largest message: one rank sends it, and perhaps the head too
    assert state / 2 <= rack.busiest_sender_bytes <= state / 2 + embedding
    assert found.kept_bytes == 2 * state
    assert found.held_bytes == 4 * state


def test_between_steps_sums_of_gradients_stay() -> None:
    base = BASES["megatron"]
    old, new = small_plan(base, data_parallel=2), small_plan(base, data_parallel=4)
    parameters = total_parameters(transformer_of(base.inputs.model.entry))
    assert reshard(old, new).held_bytes - reshard(old, new, gradients=False).held_bytes == 4 * 4 * parameters


def test_deepseek_v3_on_fewer_devices_holds_what_its_shards_come_to() -> None:
    """Each of 2,048 devices sends a 2048th of the state, less what stays: senders are as busy as they must be."""
    asked = {"global_batch": 15360, "sequence_length": 4096, "top": 0, "limits": {"fix": {"pipeline_parallel": 1}}}
    old = plan("deepseek-v3", "dgx-h100:2048", **asked)
    found = reshard(old, None)
    model = transformer_of(old.inputs.model.entry)
    assert found.held_bytes == (total_parameters(model) + mtp_parameters(model)) * 14
    assert found.traffic[0].busiest_sender_bytes == pytest.approx(found.held_bytes / 2048, rel=0.01)
