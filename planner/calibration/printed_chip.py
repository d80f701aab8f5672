"""The chip that a test printed beside its ranks, held against the device that is calibrated.

Drivers print names such as "NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe" and "AMD Instinct MI300X"; the catalog's are
a100-sxm-80gb and mi300x. Both tell the chip (letters and digits), most the form (SXM, PCIe, NVL) and the memory, and
of those that both tell none may differ.
"""

import re
from collections.abc import Callable, Mapping

from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import entry_names

_CHIP = re.compile(r"(?:[a-z]{1,2}[0-9]{1,4}|[0-9]{3,4})[a-z]{0,2}")
_MEMORY = re.compile(r"[0-9]{2,3}gb")
_FORM = re.compile(r"(sxm|pcie|nvl)[0-9]*")


def require_chips(printed: Mapping[str, int], device: str, *, file: str) -> None:
    """Raise InputError where a printed name, by its line, is of another chip than a device, by its catalog name."""
    for name, line in printed.items():
        if _contradicts(name, device):
            raise _refusal(name, device, file=file, line=line)


def _refusal(printed: str, device: str, *, file: str, line: int) -> InputError:
    alike = [name for name in entry_names("devices") if _chips(name) and not _contradicts(printed, name)]
    what_to_do = f"--device {alike[0]} is calibrated with it" if alike else "the catalog has no device of that name"
    return InputError(
        f"line {line}: the test ran on {printed!r:.60}, not on {device}",
        file=file,
        hint=f"{what_to_do}; take out the name if the driver's is wrong",
    )


def _contradicts(printed: str, device: str) -> bool:
    told: tuple[Callable[[str], frozenset[str]], ...] = (_chips, _forms, _memories)
    return any(of(printed) and of(device) and of(printed).isdisjoint(of(device)) for of in told)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", name.casefold()))


def _chips(name: str) -> frozenset[str]:
    return frozenset(word for word in _words(name) if _CHIP.fullmatch(word) and not _MEMORY.fullmatch(word))


def _forms(name: str) -> frozenset[str]:
    return frozenset(match[1] for word in _words(name) if (match := _FORM.fullmatch(word)))


def _memories(name: str) -> frozenset[str]:
    return frozenset(word for word in _words(name) if _MEMORY.fullmatch(word))
