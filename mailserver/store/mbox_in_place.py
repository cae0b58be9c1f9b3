"""Flags written over the status fields of a message in an mbox, where those have room for them."""

from __future__ import annotations

import enum
from typing import NamedTuple

from mailserver.store.contract import Flags
from mailserver.store.mbox_fields import fitted, header_length


class Sync(enum.Enum):
    """Whether what was written in place is durable: FAILED where it never will be, for all one knows."""

    DONE = enum.auto()
    DUE = enum.auto()
    FAILED = enum.auto()


class Refit(NamedTuple):
    """`octets`, which belong at `offset` of a file, give the message that begins with `head` these flags."""

    head: bytes
    flags: Flags
    octets: bytes
    offset: int


def refitted(head: bytes, flags: Flags, offset: int) -> Refit | None:
    """How a message gets the flags in place; None where its status fields have not the room.

    `head` are its first octets, from the `From ` line on, which lie at `offset`.
    """
    start = head.find(b"\n") + 1
    changed = fitted(head[start : start + header_length(head[start:])], flags)
    return None if changed is None else Refit(head, flags, changed, offset + start)
