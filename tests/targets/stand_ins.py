"""Modules that stand in for libraries of devices and services, which a machine of tests doesn't have.

What a configuration is checked for never reaches them: they are there to be imported, derived from and called.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterable
from types import ModuleType


class _Anything(type):
    """A class of which each attribute is such a class."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _StandIn(ModuleType):
    __version__ = "99.0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {"__init__": lambda *_, **__: None})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self._names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


def stand_in(*names: str) -> None:
    """Let modules of these names, and those in them, be imported where there are none."""
    sys.meta_path.append(_Finder(names))
