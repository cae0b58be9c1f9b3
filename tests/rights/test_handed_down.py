"""What a process leaves to its successor."""

from __future__ import annotations

import os

from mailserver.rights.handed_down import HandedDown
from mailserver.rights.supervisor import fork_child


def in_child(heritage: HandedDown, value: object) -> None:
    """Another process leaves the value, and has ended."""
    os.waitpid(fork_child(lambda: heritage.leave(value), lambda: None), 0)


def test_what_another_process_left_is_taken_once() -> None:
    """The last value counts; a process does not inherit from itself."""
    heritage = HandedDown("test")
    assert heritage.take() is None
    in_child(heritage, {"a": ["x" * 5000]})
    in_child(heritage, [1, 2])
    assert heritage.take() == [1, 2]
    assert heritage.take() is None
    heritage.leave("mine")
    assert heritage.take() is None
    in_child(heritage, "theirs")
    assert heritage.take() == "theirs"
    heritage.close()


def test_half_a_value_is_none() -> None:
    """Whoever died while it wrote leaves nothing, and the next one something."""
    heritage = HandedDown("test")
    in_child(heritage, "whole")
    os.pwrite(heritage._descriptor, b"?", 30)
    assert heritage.take() is None
    in_child(heritage, "again")
    assert heritage.take() == "again"
    heritage.close()
