"""A new reactor in the place of the old one, wherever a module has it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys, types
from twisted.internet import reactor as old
from mailserver.rights.fresh_reactor import fresh_reactor, look_for_reactor

def module(name, value):
    sys.modules[name] = made = types.ModuleType(name)
    made.reactor = value
    return made

before, other = module("before", old), module("other", "another one's")
{look}
behind = [module("behind%d" % number, old) for number in range(3)]
for _ in range(2):
    new = fresh_reactor()
    assert new is not old and new is sys.modules["twisted.internet.reactor"]
    assert all(each.reactor is new for each in (before, *behind)), "a module has the old one"
    assert other.reactor == "another one's"
    old = new
new.callWhenRunning(new.stop)
new.run()
"""


@pytest.mark.parametrize("look", ["", "look_for_reactor()"])
def test_every_module_gets_the_new_one(look: str) -> None:
    """Those that were found before a fork, those imported after it, and again where it is replaced again."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM.format(look=look)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
