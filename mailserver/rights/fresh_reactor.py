"""A reactor for a forked process.

Importing Twisted's mail protocols imports the global reactor, and a fork would share its epoll
instance with the parent: events of one process would wake the other. A role that wants a
reactor takes a new one, put in the place of the old wherever a module had it.
"""

from __future__ import annotations

import sys
from typing import Any

import twisted.internet
from twisted.internet import epollreactor

_NAME = "twisted.internet.reactor"


def fresh_reactor() -> Any:
    """The global reactor is a new one of this process alone. Before anything uses the old one."""
    old = sys.modules.pop(_NAME, None)
    if hasattr(twisted.internet, "reactor"):
        del twisted.internet.reactor
    epollreactor.install()
    new = sys.modules[_NAME]
    if old is not None:
        old._poller.close()
        for module in tuple(sys.modules.values()):
            if getattr(module, "reactor", None) is old:
                module.reactor = new  # type: ignore[attr-defined]
    return new
