"""One act of local delivery, as a value: what to do, as whom, with which header lines.

The queue's runner makes jobs out of a plan; an agent performs them. A job crosses process
borders as JSON with the message's open descriptor beside it, so it holds plain values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mailserver.envelope import Outcome


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rights an act is done with."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str = ""


class Action(Enum):
    """What a job does with the message."""

    MAILBOX = "mailbox"  # the recipient's own: mbox file, or maildir with a trailing slash
    FILE = "file"  # /file of an alias or .forward; a trailing slash means maildir
    COMMAND = "command"  # |command
    PIPE = "pipe"  # a pipe(8) row of master.cf


@dataclass(frozen=True, slots=True)
class Job:
    """Deliver one message to one leaf.

    `target` is a path or a command's text. `prefix` are the header lines written before the content
    (Return-Path, X-Original-To, Delivered-To), LF line ends. The content begins at
    `content_offset` of the descriptor and is `content_length` octets long, LF line ends.
    `environment` is for commands. `size_limit` 0 means none; `time_limit` is in seconds. `quota` is the
    rule for the owner's mail (`store.quota`), "" where there is none.

    A PIPE has its service's name as target; `arguments` are the command and what it is called with, in
    `directory`, "" for the owner's home; `flags` and `eol` are those of `pipe_content.formatted`.
    """

    action: Action
    owner: Owner
    target: str
    sender: str  # "" is the null sender
    recipient: str
    prefix: bytes
    content_offset: int
    content_length: int
    environment: Mapping[str, str] = field(default_factory=dict)
    size_limit: int = 0
    time_limit: int = 1000
    queue_id: str = ""
    quota: str = ""
    arguments: tuple[str, ...] = ()
    directory: str = ""
    flags: str = ""
    eol: str = "\n"


@dataclass(frozen=True, slots=True)
class Forward:
    """A user's .forward as it was read: its text and its path. RELIABILITY B8 says how it is read."""

    path: str
    text: bytes


class Agents(Protocol):
    """Whoever acts as the recipients: this process, or the delivery agents. Blocking."""

    def read_forward(self, owner: Owner, paths: tuple[str, ...]) -> tuple[Forward | None, tuple[str, ...]]:
        """The first of `paths` that exists and may be used; and warnings for those that may not.

        Raises OSError where that cannot be known for now: the recipient is deferred.
        """

    def read_include(self, owner: Owner, path: str) -> bytes:
        """The text of an `:include:` file, read with the owner's rights. Raises OSError."""

    def perform(self, job: Job, content: int) -> Outcome:
        """The job is done, or it is not and nothing of it is left behind. Never raises."""
