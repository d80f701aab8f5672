"""What a process really does: the collectives that PyTorch runs, and the bytes that tensors keep."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, get_process_group_ranks
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.distributed_c10d import _resolve_process_group
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from meshwright.catalog.errors import MeshwrightError
from meshwright.planner.ledger.transfers import Kind, Transfer

Arguments = tuple[Any, ...]
QUIET = ("wait_tensor", "barrier", "monitored_barrier_", "_wrap_tensor_autograd")
NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")
# By operator: the kind, and which argument is the payload.
IN_PLACE: Mapping[str, tuple[Kind, int]] = {
    "_allgather_base_": (Kind.ALL_GATHER, 0),
    "_reduce_scatter_base_": (Kind.REDUCE_SCATTER, 1),
    "allreduce_": (Kind.ALL_REDUCE, 0),
    "alltoall_base_": (Kind.ALL_TO_ALL, 1),
    "send": (Kind.SEND, 0),
    "recv_": (Kind.RECV, 0),
}
FUNCTIONAL: Mapping[str, Kind] = {
    "all_gather_into_tensor": Kind.ALL_GATHER,
    "reduce_scatter_tensor": Kind.REDUCE_SCATTER,
    "all_reduce": Kind.ALL_REDUCE,
    "all_to_all_single": Kind.ALL_TO_ALL,
}


class CollectiveMeter(TorchDispatchMode):
    """Counts each collective that reaches the dispatcher within its context."""

    def __init__(self) -> None:
        super().__init__()
        self.transfers: list[Transfer] = []

    def __torch_dispatch__(  # the signature and the types are PyTorch's
        self,
        operator: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: Arguments = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Note an operator if it is a collective, and run it."""
        if operator.namespace in NAMESPACES:
            name = operator._schema.name.split("::")[1]
            if name not in QUIET:
                self.transfers.append(_transfer(operator.namespace, name, args))
        return operator(*args, **(kwargs or {}))


def _transfer(namespace: str, name: str, args: Arguments) -> Transfer:
    if namespace == "c10d" and name in IN_PLACE:
        kind, payload = IN_PLACE[name]
        group = next(ProcessGroup.unbox(each) for each in args if isinstance(each, torch.ScriptObject))
        size = _bytes(args[payload])
    elif name in FUNCTIONAL:
        kind = FUNCTIONAL[name]
        group = next(_resolve_process_group(each) for each in reversed(args) if isinstance(each, str))
        size = _bytes(args[0]) * (group.size() if kind is Kind.ALL_GATHER else 1)
    else:
        raise MeshwrightError(
            f"the launcher ran {namespace}::{name}, a collective that it can't count", hint="please report it"
        )
    return Transfer(kind=kind, ranks=tuple(sorted(get_process_group_ranks(group))), count=1, payload_bytes=size)


def _bytes(value: Tensor | Iterable[Tensor]) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_bytes(each) for each in value)


class ActivationMeter:
    """Bytes that forward passes keep for backward passes: storages of saved tensors, each once, without parameters.

    A storage counts from when the first operator saves it until the last one that did lets go of it.
    """

    def __init__(self, chunks: Iterable[nn.Module]) -> None:
        # Found once, and read directly: a step saves hundreds of tensors, each held against all parameters.
        self._owners = [module for chunk in chunks for module in chunk.modules() if module._parameters]
        self.held_bytes = self.peak_bytes = 0
        self._users: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> "_Kept":
        """Note a tensor that autograd saves; without its history, or an operator that saves its output never ends."""
        storage, tensor = local_of(tensor).untyped_storage(), tensor.detach()
        key, size = storage.data_ptr(), storage.nbytes()
        if not size or (key not in self._users and self._is_parameter(key)):
            return _Kept(tensor, None)
        if key not in self._users:
            self.held_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._users[key] = self._users.get(key, 0) + 1
        return _Kept(tensor, lambda: self._release(key, size))

    @staticmethod
    def unpack(kept: "_Kept") -> Tensor:
        """Give a saved tensor back."""
        return kept.tensor

    def _is_parameter(self, key: int) -> bool:
        held = (each for module in self._owners for each in module._parameters.values() if each is not None)
        own = (each._local_tensor if isinstance(each, DTensor) else each for each in held)
        return any(each.untyped_storage().data_ptr() == key for each in own)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.held_bytes -= size


class _Kept:
    """A saved tensor; lives for as long as autograd keeps it."""

    def __init__(self, tensor: Tensor, released: Callable[[], None] | None) -> None:
        self.tensor, self._released = tensor, released

    def __del__(self) -> None:
        if self._released is not None:
            self._released()


def local_of(tensor: Tensor) -> Tensor:
    """Give a rank's own part of a tensor, with what is on its way to it."""
    if isinstance(tensor, DTensor):
        tensor = tensor.to_local()
    return tensor.wait() if isinstance(tensor, AsyncCollectiveTensor) else tensor


def local_bytes(tensors: Iterable[Tensor]) -> int:
    """Give the bytes of a rank's own parts of tensors."""
    return sum(_bytes(local_of(tensor)) for tensor in tensors)
