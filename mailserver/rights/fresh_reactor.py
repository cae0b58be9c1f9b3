"""A reactor for a forked process.

Importing Twisted's mail protocols imports the global reactor, and a fork would share its epoll
instance with the parent: events of one process would wake the other. A role that wants a
reactor takes a new one, put in the place of the old wherever a module had it.

Whoever forks often looks for these modules before (`look_for_reactor`): a child that went through all
modules would have to copy the memory in which they lie, five megabytes of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

import twisted.internet
from twisted.internet import epollreactor

_NAME = "twisted.internet.reactor"


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found among the first `count` modules."""

    reactor: Any
    holders: Sequence[ModuleType]
    count: int


_looked: _Looked | None = None


def look_for_reactor() -> None:
    """Which modules have the global reactor is known from now on, here and in forked processes."""
    global _looked
    old = sys.modules.get(_NAME)
    modules = tuple(sys.modules.values())
    _looked = _Looked(old, tuple(_that_have(old, modules)), len(modules))


def fresh_reactor() -> Any:
    """The global reactor is a new one of this process alone. Before anything uses the old one."""
    old = sys.modules.get(_NAME)
    holders = _holders(old)
    sys.modules.pop(_NAME, None)
    if hasattr(twisted.internet, "reactor"):
        del twisted.internet.reactor
    epollreactor.install()
    new = sys.modules[_NAME]
    if old is not None:
        old._poller.close()
        for module in holders:
            module.reactor = new  # type: ignore[attr-defined]
    return new


def _holders(reactor: Any) -> Sequence[ModuleType]:
    if _looked is None or _looked.reactor is not reactor:
        return tuple(_that_have(reactor, tuple(sys.modules.values())))
    later = islice(reversed(sys.modules.values()), max(len(sys.modules) - _looked.count, 0))
    return (*_looked.holders, *_that_have(reactor, tuple(later)))


def _that_have(reactor: Any, modules: Iterable[ModuleType]) -> Iterable[ModuleType]:
    if reactor is None:
        return ()
    return (module for module in modules if getattr(module, "reactor", None) is reactor)
