"""Collectives of PyTorch between processes of this machine, one a device."""

import importlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meshwright.catalog.errors import MeshwrightError
from meshwright.planner.calibration.measure.stopwatch import Stopwatch
from meshwright.planner.calibration.timing import Collective

BACKENDS = {"cuda": "nccl", "npu": "hccl", "cpu": "gloo"}
ELEMENT_BYTES = 2


def time_collectives(
    torch: Any,  # noqa: ANN401 - a module that may not be there has no type
    kind: str,
    sizes: Sequence[tuple[Collective, int]],
    *,
    ranks: int,
) -> tuple[float, ...]:
    """Give the seconds of collectives of that many bytes over the first `ranks` devices of a kind.

    Raises MeshwrightError where one of the processes fails.
    """
    with tempfile.TemporaryDirectory(prefix="meshwright-") as folder:
        try:
            torch.multiprocessing.spawn(run_rank, args=(ranks, kind, folder, tuple(sizes)), nprocs=ranks)
        except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException) as error:
            raise MeshwrightError(
                f"timing collectives over {ranks} devices failed: {str(error).strip().splitlines()[-1]:.200}",
                hint="see whether the vendor's own tests of collectives run; their output can be given as a file",
            ) from None
        return tuple(json.loads((Path(folder) / "seconds.json").read_text("utf-8")))


def run_rank(rank: int, ranks: int, kind: str, folder: str, sizes: tuple[tuple[Collective, int], ...]) -> None:
    """Be one of the processes; the first writes the times."""
    torch: Any = importlib.import_module("torch")
    if kind == "npu":
        importlib.import_module("torch_npu")
    distributed = torch.distributed
    module = getattr(torch, kind)
    if kind != "cpu":
        module.set_device(rank)
    store = (Path(folder) / "store").as_uri()
    distributed.init_process_group(BACKENDS[kind], init_method=store, rank=rank, world_size=ranks)

    def agree(seconds: float) -> float:
        longest = torch.tensor([seconds], device=kind)
        distributed.all_reduce(longest, op=distributed.ReduceOp.MAX)
        return float(longest.item())

    watch = Stopwatch(clock=time.perf_counter, synchronize=module.synchronize, agree=agree)
    seconds = [watch.time_s(_launcher(torch, which, whole_bytes, kind=kind)) for which, whole_bytes in sizes]
    if rank == 0:
        (Path(folder) / "seconds.json").write_text(json.dumps(seconds), "utf-8")
    distributed.destroy_process_group()


def _launcher(torch: Any, collective: Collective, whole_bytes: int, *, kind: str) -> Callable[[], object]:  # noqa: ANN401
    """Give what launches one collective on buffers of its own."""
    distributed = torch.distributed
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    elements = whole_bytes // ELEMENT_BYTES
    whole, other = (torch.zeros(elements, dtype=torch.bfloat16, device=kind) for _ in range(2))
    share = torch.zeros(elements // ranks, dtype=torch.bfloat16, device=kind)

    # PyTorch 2.13 renames two of them, and warns of the old names.
    all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    reduce_scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor

    def exchange() -> None:
        sending = distributed.P2POp(distributed.isend, whole, (rank + 1) % ranks)
        receiving = distributed.P2POp(distributed.irecv, other, (rank - 1) % ranks)
        for work in distributed.batch_isend_irecv([sending, receiving]):
            work.wait()

    return {
        Collective.ALL_REDUCE: lambda: distributed.all_reduce(whole),
        Collective.ALL_GATHER: lambda: all_gather(whole, share),
        Collective.REDUCE_SCATTER: lambda: reduce_scatter(share, whole),
        Collective.ALL_TO_ALL: lambda: distributed.all_to_all_single(other, whole),
        Collective.SEND_RECV: exchange,
    }[collective]
