"""In which order the stages of a pipeline run their passes, schedule by schedule, as the papers have it."""

from simulation.event_simulation import Pass, Work, alone

Orders = list[list[Work]]


def gpipe(stages: int, count: int) -> Orders:
    return [
        alone(*(("F", batch, stage) for batch in range(count)), *(("B", batch, stage) for batch in range(count)))
        for stage in range(stages)
    ]


def one_chunk(stages: int, count: int, *, slack: int = 1, splits: bool = False) -> Orders:
    """Give 1F1B; with weight gradients split off ZB-H1, with a slack of 2 ZB-H2 (arXiv 2401.10241, figures 2, 3)."""
    orders = []
    for stage in range(stages):
        warm, delay, put_off = min(slack * (stages - 1 - stage), count), slack * stage, 0
        order = alone(*(("F", batch, stage) for batch in range(warm)))
        for batch in range(count):
            order += alone(("F", warm + batch, stage)) if warm + batch < count else []
            order += alone(("B", batch, stage))
            if splits and batch >= delay:
                order += alone(("W", put_off, stage))
                put_off += 1
        orders.append(order + alone(*(("W", batch, stage) for batch in range(put_off, count) if splits)))
    return orders


def interleaved(stages: int, count: int, *, chunks: int) -> Orders:
    """Give Megatron's order: micro-batches go through chunk after chunk in blocks as long as the pipeline."""

    def nth(kind: str, number: int, stage: int) -> tuple[str, int, int]:
        block, place = divmod(number, stages * chunks)
        chunk, batch = divmod(place, stages)
        return kind, block * stages + batch, (chunks - 1 - chunk if kind == "B" else chunk) * stages + stage

    passes = count * chunks
    orders = []
    for stage in range(stages):
        warm = min(passes, 2 * (stages - 1 - stage) + (chunks - 1) * stages)
        order = alone(*(nth("F", number, stage) for number in range(warm)))
        for number in range(passes):
            order += alone(nth("F", warm + number, stage)) if warm + number < passes else []
            order += alone(nth("B", number, stage))
        orders.append(order)
    return orders


def zero_bubble_v(stages: int, count: int) -> Orders:
    """Give ZBV (arXiv 2401.10241, section 6), in the phases in which PyTorch's ScheduleZBVZeroBubble lays it out."""
    orders = []
    for stage in range(stages):
        places = (stage, 2 * stages - 1 - stage)
        done = dict.fromkeys(("F0", "F1", "B0", "B1", "W0", "W1"), 0)
        order: list[Work] = []

        def run(
            *names: str, done: dict[str, int] = done, order: list[Work] = order, places: tuple[int, int] = places
        ) -> None:
            for name in names:
                if done[name] < count:
                    order.append((Pass(name[0], done[name], places[int(name[1])]),))
                done[name] += 1

        run(*["F0"] * (2 * (stages - stage) - 1))
        run(*["F1", "F0"] * stage)
        run(*["F1", "B1", "W1"] * (stages - stage))
        fed = max(2 * stages - 1, count)
        while done["F1"] < done["F0"] or done["F0"] < fed:
            if done["F0"] < fed:
                run("F0")
            run("B0", "W0", "F1", "B1", "W1")
        run(*["B0", "B1"] * stage)
        run(*["B0", "W0"] * (stages - stage))
        run(*["W1"] * (count - done["W1"]))
        run(*["W0"] * (count - done["W0"]))
        orders.append(order)
    return orders


def dual_pipe(stages: int, count: int) -> Orders:
    """Give DualPipe's eight steps (deepseek-ai/DualPipe); micro-batches from `count` / 2 on come from the other end."""
    half = count // 2
    orders = []
    for stage in range(stages):
        near = min(stage, stages - 1 - stage)
        streams = (0, 1) if stage < stages // 2 else (1, 0)
        steps = _dual_steps(near, stages=stages, half=half)
        orders.append(
            [
                tuple(
                    Pass(kind, streams[phase] * half + batch, stages - 1 - stage if streams[phase] else stage)
                    for kind, batch, phase in work
                )
                for work in steps
            ]
        )
    return orders


def dual_pipe_v(stages: int, count: int) -> Orders:
    """Give DualPipeV, one half of DualPipe's stages; the second stream is the first one's way back."""
    return [
        [
            tuple(Pass(kind, batch, 2 * stages - 1 - stage if phase else stage) for kind, batch, phase in work)
            for work in _dual_steps(stage, stages=2 * stages, half=count)
        ]
        for stage in range(stages)
    ]


def _dual_steps(near: int, *, stages: int, half: int) -> list[tuple[tuple[str, int, int], ...]]:
    """Give the steps of a stage, `near` from its end of so many stages: kind, micro-batch of the stream, stream."""
    behind = stages // 2 - 1 - near
    done = {"F": [0, 0], "B": [0, 0]}
    waiting: list[tuple[str, int, int]] = []
    steps: list[tuple[tuple[str, int, int], ...]] = []

    def take(kind: str, stream: int) -> tuple[str, int, int]:
        batch = done[kind][stream]
        done[kind][stream] += 1
        return kind, batch, stream

    def forward(stream: int) -> None:
        steps.append((take("F", stream),))

    def backward(stream: int, *, splits: bool) -> None:
        what = take("B", stream)
        gradients = ("W", *what[1:])
        steps.append((what,) if splits else (what, gradients))
        if splits:
            waiting.append(gradients)

    def both(ahead: int, back: int) -> None:
        what = take("B", back)
        steps.append((take("F", ahead), what, ("W", *what[1:])))

    for _ in range(2 * behind):
        forward(0)
    for _ in range(near + 1):
        forward(0)
        forward(1)
    for _ in range(behind):
        backward(1, splits=True)
        steps.append((waiting.pop(0),))
        forward(1)
    for number in range(half - stages + near + 1):
        if number == 0 and not behind:
            forward(0)
            backward(1, splits=False)
        else:
            both(0, 1)
        both(1, 0)
    for _ in range(behind):
        backward(1, splits=False)
        both(1, 0)
    splits = False
    for number in range(near + 1):
        turns = number == (near + 1) // 2
        splits |= turns and near % 2 == 1
        backward(1, splits=splits)
        splits |= turns and near % 2 == 0
        backward(0, splits=splits)
    for _ in range(behind):
        steps.append((waiting.pop(0),))
        backward(0, splits=True)
    return steps + [(what,) for what in waiting]
