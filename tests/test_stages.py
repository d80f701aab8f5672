"""How layers are cut into chunks and dealt to stages."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.stages import chunk_sizes, ends_of_stage, stage_chunks
from meshwright.costmodels.transformer import Experts


@pytest.mark.parametrize(
    ("layers", "chunks", "expected"),
    [
        (8, 4, (2, 2, 2, 2)),
        (126, 16, (7, *(8,) * 14, 7)),  # Llama 3.1 405B (arXiv 2407.21783, section 3.3.2)
        (61, 16, (3, *(4,) * 13, 3, 3)),  # three smaller ones: the last, the first, the last but one
        (11, 4, (3, 3, 3, 2)),
        (9, 4, (2, 3, 2, 2)),
        (126, 128, (0, *(1,) * 126, 0)),
        (127, 128, (*(1,) * 127, 0)),
        (1, 1, (1,)),
    ],
)
def test_chunks_are_smaller_at_the_ends(layers: int, chunks: int, expected: tuple[int, ...]) -> None:
    assert chunk_sizes(layers, chunks) == expected


@pytest.mark.parametrize("layers", range(1, 40))
def test_chunks_hold_each_layer_once_and_differ_by_one(layers: int) -> None:
    for chunks in range(1, layers + 3):
        sizes = chunk_sizes(layers, chunks)
        assert (len(sizes), sum(sizes)) == (chunks, layers)
        assert max(sizes) - min(sizes) <= 1
        assert sizes[-1] == min(sizes)
        smaller = [chunk for chunk, size in enumerate(sizes) if size == min(sizes)]
        if max(sizes) > min(sizes):
            assert all(min(chunk, chunks - 1 - chunk) <= (len(smaller) + 1) // 2 for chunk in smaller)


@pytest.mark.parametrize(("layers", "chunks"), [(4, 7), (4, 0)])
def test_too_many_chunks_are_refused(layers: int, chunks: int) -> None:
    with pytest.raises(ValueError, match="can't be cut"):
        chunk_sizes(layers, chunks)


def layers_of(layers: int, layout: Layout) -> list[tuple[tuple[int, ...], ...]]:
    return [held.layers for held in stage_chunks(layers, layout)]


def test_chunks_go_round_the_stages() -> None:
    # Megatron's interleaving (arXiv 2104.04473, section 2.2): of 8 layers in 4 chunks stage 0 has chunks 0 and 2.
    interleaved = Layout(pipeline_parallel=2, virtual_pipeline=2)
    assert layers_of(8, interleaved) == [((0, 1), (4, 5)), ((2, 3), (6, 7))]
    assert layers_of(5, Layout(pipeline_parallel=2)) == [((0, 1, 2),), ((3, 4),)]


FOLDED = (Schedule.V_HALF, Schedule.V_MIN, Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)


@pytest.mark.parametrize("schedule", FOLDED)
def test_a_folded_model_has_both_ends_on_the_first_stage(schedule: Schedule) -> None:
    # arXiv 2405.15362, section 3: the way back passes the stages in reverse.
    layout = Layout(pipeline_parallel=2, virtual_pipeline=2, schedule=schedule)
    assert layers_of(8, layout) == [((0, 1), (6, 7)), ((2, 3), (4, 5))]
    assert [ends_of_stage(layout, stage) for stage in range(2)] == [(True, True), (False, False)]


def test_a_mirrored_model_is_on_the_stages_twice() -> None:
    # arXiv 2412.19437, section 3.2.1: a stage has the layers of its counterpart from the other end too.
    layout = Layout(pipeline_parallel=4, schedule=Schedule.DUAL_PIPE)
    assert layers_of(4, layout) == [((0,), (3,)), ((1,), (2,)), ((2,), (1,)), ((3,), (0,))]
    assert [ends_of_stage(layout, stage) for stage in range(4)] == [
        (True, True),
        (False, False),
        (False, False),
        (True, True),
    ]


def test_a_split_says_what_each_chunk_holds() -> None:
    assert layers_of(6, Layout(pipeline_parallel=4, split=(1, 2, 2, 1))) == [((0,),), ((1, 2),), ((3, 4),), ((5,),)]
    layout = Layout(pipeline_parallel=2, virtual_pipeline=2, split=(1, 0, 2, 1))
    assert layers_of(4, layout) == [((0,), (1, 2)), ((), (3,))]


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (Layout(pipeline_parallel=2, split=(3, 4)), "chunks of 3, 4 layers aren't 8 layers in 2 chunks"),
        (Layout(pipeline_parallel=2, split=(8,)), "chunks of 8 layers aren't 8 layers in 2 chunks"),
        (
            Layout(pipeline_parallel=2, recompute=Recompute.FULL, recompute_split=(5, 0)),
            "5, 0 layers can't be recomputed of chunks of 4, 4 layers",
        ),
        (Layout(pipeline_parallel=2, recompute=Recompute.FULL, recompute_split=(5,)), "5 layers can't be recomputed"),
        (Layout(pipeline_parallel=2, recompute_split=(1, 1)), "goes with selective or full recomputation alone"),
        (
            Layout(pipeline_parallel=2, recompute=Recompute.FULL, recompute_layers=1, recompute_split=(1, 1)),
            "goes with selective or full recomputation alone",
        ),
        (Layout(pipeline_parallel=2, schedule=Schedule.V_HALF), "v-half needs two chunks a stage, not 1"),
        (Layout(pipeline_parallel=3, schedule=Schedule.DUAL_PIPE), "an even number of stages"),
    ],
)
def test_what_a_schedule_can_t_place_is_refused(layout: Layout, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        stage_chunks(8, layout)


@pytest.fixture(scope="module")
def mixed_job(round_job: Callable[..., Job]) -> Job:
    """A model of 9 layers: 2 dense, 7 mixtures, and a module for multi-token prediction."""
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512, "dense_layers": 2}
    return round_job(model={"layers": 9, "experts": experts, "mtp_layers": 1})


def test_equal_stages_are_counted_once(mixed_job: Job) -> None:
    # 9 layers on 4 stages: 2, 3, 2, 2. By kind (dense, mixture): (2, 0), (0, 3), (0, 2), and (0, 2 + 1 MTP) at the end.
    table = stage_table(mixed_job.model, LayoutTable.of([Layout(pipeline_parallel=4)]))
    assert [isinstance(kind.mlp, Experts) for kind in mixed_job.model.layer_kinds] == [False, True]
    assert table.layers[0].tolist() == [[2, 0], [0, 3], [0, 2], [0, 3]]
    assert table.multiplicity[0].tolist() == [1, 1, 1, 1]
    assert table.first[0].tolist() == [True, False, False, False]
    assert table.last[0].tolist() == [False, False, False, True]


def test_stages_that_recompute_differently_differ(mixed_job: Job) -> None:
    # 9 layers on 4 stages: 2 (dense), 3, 2, 2 and the MTP module behind the last.
    layout = Layout(pipeline_parallel=4, recompute=Recompute.FULL)
    some = replace(layout, recompute_split=(1, 2, 2, 3))
    table = stage_table(mixed_job.model, LayoutTable.of([layout, some]))
    assert table.layers[0].tolist() == table.layers[1].tolist() == [[2, 0], [0, 3], [0, 2], [0, 3]]
    assert table.recomputed.tolist() == [table.layers[0].tolist(), [[1, 0], [0, 2], [0, 2], [0, 3]]]
    # The first layers of a chunk, of either kind: of 3 layers, 2 dense and a mixture.
    mixed = replace(layout, pipeline_parallel=3, recompute_split=(3, 1, 0), split=(3, 3, 3))
    table = stage_table(mixed_job.model, LayoutTable.of([mixed, replace(mixed, recompute_split=(1, 3, 4))]))
    assert table.recomputed.tolist() == [[[2, 1], [0, 1], [0, 0]], [[1, 0], [0, 3], [0, 4]]]


def test_equal_stages_that_recompute_alike_are_one(round_job: Callable[..., Job]) -> None:
    layout = Layout(pipeline_parallel=8, recompute=Recompute.FULL, recompute_split=(1, 1, 1, 0, 0, 0, 0, 0))
    table = stage_table(round_job().model, LayoutTable.of([layout]))
    assert table.index.tolist() == [[0, 1, 3, 7]]
    assert table.multiplicity.tolist() == [[1, 2, 4, 1]]
    assert table.recomputed[0, :, 0].tolist() == [1, 1, 0, 0]


def test_a_mirrored_model_recomputes_a_chunk_on_both_stages(round_job: Callable[..., Job]) -> None:
    layout = Layout(
        pipeline_parallel=4, schedule=Schedule.DUAL_PIPE, recompute=Recompute.SELECTIVE, recompute_split=(2, 1, 0, 0)
    )
    table = stage_table(round_job().model, LayoutTable.of([layout]))
    assert table.recomputed[0, :, 0].tolist() == [2, 1, 1, 2]


def test_neighbours_are_counted_once_and_strangers_apart(round_job: Callable[..., Job]) -> None:
    # 10 layers on 8 stages: 1, 1, 1, 2, 2, 1, 1, 1; behind the two of two layers stages like the second are a run anew.
    table = stage_table(round_job(model={"layers": 10}).model, LayoutTable.of([Layout(pipeline_parallel=8)]))
    assert table.layers[0, :, 0].tolist() == [1, 1, 2, 1, 1]
    assert table.index[0].tolist() == [0, 1, 3, 5, 7]
    assert table.multiplicity[0].tolist() == [1, 2, 2, 2, 1]


def test_layouts_of_one_table_cut_the_model_each_their_own_way(mixed_job: Job) -> None:
    layouts = LayoutTable.of(
        [
            Layout(pipeline_parallel=2),
            Layout(pipeline_parallel=2, split=(6, 3)),
            Layout(pipeline_parallel=2, virtual_pipeline=2, schedule=Schedule.ZERO_BUBBLE_V),
            Layout(pipeline_parallel=2, virtual_pipeline=2),
            Layout(pipeline_parallel=2, schedule=Schedule.DUAL_PIPE),
            Layout(pipeline_parallel=2, vocabulary_parallel=True),
        ]
    )
    # 9 layers, the first 2 dense, and an MTP module that counts as a mixture where the head is.
    table = stage_table(mixed_job.model, layouts)
    assert table.layers.tolist() == [
        [[2, 3], [0, 4 + 1]],
        [[2, 4], [0, 3 + 1]],
        [[2, 0 + 2 + 1], [0, 3 + 2]],
        [[2, 2], [0, 3 + 2 + 1]],
        [[2, 3 + 4 + 1], [2, 3 + 4 + 1]],
        [[2, 3], [0, 4 + 1]],
    ]
    assert table.first.tolist() == [
        [True, False],
        [True, False],
        [True, False],
        [True, False],
        [True, True],
        [True, True],
    ]
    assert table.last.tolist() == [
        [False, True],
        [False, True],
        [True, False],
        [False, True],
        [True, True],
        [True, True],
    ]


def test_the_earliest_stands_for_its_equals_and_short_rows_are_padded(round_job: Callable[..., Job]) -> None:
    layouts = LayoutTable.of([Layout(pipeline_parallel=8), Layout(), Layout(pipeline_parallel=2)])
    table = stage_table(round_job().model, layouts)
    assert table.index.tolist() == [[0, 1, 7], [0, 0, 0], [0, 1, 0]]
    assert table.multiplicity.tolist() == [[1, 6, 1], [1, 0, 0], [1, 1, 0]]
    assert table.layers[:, :, 0].tolist() == [[1, 1, 1], [8, 0, 0], [4, 4, 0]]


@pytest.mark.parametrize(("pipeline", "virtual"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 1), (2, 4), (3, 3)])
def test_distinct_stages_add_up_to_the_model(mixed_job: Job, pipeline: int, virtual: int) -> None:
    layouts = LayoutTable.of([Layout(pipeline_parallel=pipeline, virtual_pipeline=virtual)])
    table = stage_table(mixed_job.model, layouts)
    totals = (table.layers * table.multiplicity[:, :, np.newaxis]).sum(axis=1)
    assert totals.tolist() == [[2, 7 + 1]]
    assert table.multiplicity.sum() == pipeline
    assert (table.first * table.multiplicity).sum() == (table.last * table.multiplicity).sum() == 1
