"""Roles that belong together, from their start to their end: what the supervisor keeps of them."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailserver.maillog import MailLog
from mailserver.rights.heart import Heart
from mailserver.rights.log_line import LogLine
from mailserver.rights.sign import Sign


@dataclass(frozen=True, slots=True)
class Passage:
    """What a role says at a reload: that it could begin; that it takes nothing new any more."""

    ready: Sign = field(default_factory=Sign)
    released: Sign = field(default_factory=Sign)


class Closable(Protocol):
    """What a process may have from before its fork: a socket, or what it left to its successor."""

    def close(self) -> None:
        """The process has it no more."""


@dataclass(frozen=True, slots=True)
class Role:
    """A process to keep running.

    `main` runs in the child, as root; it takes the rights it needs and drops the others
    itself. `listeners` names the sockets, and the like, that it keeps: all others are closed before.
    `death_signal` is what it gets when the supervisor dies: SIGTERM for one that must finish what it does.
    A role with a `heart` beats it about once a second. One with a `passage` gives its signs, and ends
    by itself after RETIRE; the others of its generation are there for it.
    """

    name: str
    main: Callable[[], None]
    listeners: frozenset[str] = frozenset()
    death_signal: int = signal.SIGKILL
    heart: Heart | None = None
    passage: Passage | None = None


@dataclass(frozen=True)
class Generation:
    """Roles that belong together, with their sockets and log.

    `begins` is called before BEGIN is said: roles that are started again need not wait for it.
    `ended` is called when no process of it is left.
    """

    roles: Sequence[Role]
    listeners: Mapping[str, Closable]
    log: MailLog
    begins: Callable[[], None] = lambda: None
    ended: Callable[[], None] = lambda: None


class Renewal(Protocol):
    """Whoever has the next generation at a reload."""

    def next(self) -> Generation | None:
        """The roles to go on with; None where everything stays as it is."""

    def taken(self, problem: str) -> None:
        """They are in their place, or, where there is a problem, they are gone again."""


@dataclass(slots=True)
class Place:
    """A role and its present process. `pid` 0: none; start it at `start_at`."""

    role: Role
    pid: int = 0
    log_line: LogLine | None = None
    started: float = 0.0
    start_at: float = 0.0
    wait: float = 0.0


class Term:
    """A generation with its processes."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.places = [Place(role) for role in generation.roles]
        self.is_coming = False
        self.has_failed = False
        self.is_retired = False
        self.is_stopping = False
        self.stopped_at = math.inf

    def passing(self) -> list[Place]:
        """The roles that end by themselves."""
        return [place for place in self.places if place.role.passage is not None]

    def wants(self, place: Place) -> bool:
        """Whether the role is to run: one that ended by itself is not, nor any once they are told to stop."""
        has_ended = self.is_retired and place.role.passage is not None
        return not (has_ended or self.is_stopping or self.has_failed)

    def is_ready(self) -> bool:
        """Whether all of them could begin."""
        return all(p.role.passage.ready.is_given() for p in self.places if p.role.passage)

    def has_released(self, name: str) -> bool:
        """Whether the role of that name takes nothing new."""
        named = [place for place in self.passing() if place.role.name == name]
        return all(p.pid == 0 or p.role.passage is None or p.role.passage.released.is_given() for p in named)

    def signal(self, places: Sequence[Place], number: int) -> None:
        """Those that live get the signal."""
        for place in places:
            if place.pid:
                os.kill(place.pid, number)

    def is_alive(self) -> bool:
        """Whether a process of it is left."""
        return any(place.pid for place in self.places)
