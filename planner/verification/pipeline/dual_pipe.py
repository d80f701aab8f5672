"""DualPipe and DualPipeV (deepseek-ai/DualPipe; arXiv 2412.19437, section 3.2.1): eight steps a stage."""

from meshwright.planner.verification.pipeline.passes import Orders, Pass


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
