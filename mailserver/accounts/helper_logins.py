"""`Logins` in a front: asks the helper, which knows passwords and penalties.

The channel is opened at the first login and again after the helper was restarted; attempts
that were under way then, and those while nobody listens, are refused as temporary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, succeed

from mailserver.accounts.codec import account_from, attempt_message, challenge_from, refused_from
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.rights.listeners import connect_channel
from mailserver.rights.messages import Message, close_all, to_octets
from mailserver.rights.reactor_channel import ReactorChannel

_LONGEST: Final = 1024  # of a name or password; longer ones are wrong anyway, and must fit in a packet
T = TypeVar("T")


class HelperLogins:
    """`Logins` over the helper's channel at `path`."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path
        self._channel: ReactorChannel | None = None
        self._identifiers = itertools.count(1)
        self._waiting: dict[int, tuple[Deferred[Any], Callable[[Message, list[int]], Any]]] = {}

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """See `Logins.login`."""
        bounded = replace(attempt, name=attempt.name[:_LONGEST], password=attempt.password[:_LONGEST])
        return self._ask({"attempt": attempt_message(bounded)}, _granted)

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """See `Logins.challenge`."""
        return self._ask({"challenge": name[:_LONGEST]}, _challenge)

    def _ask(self, question: Message, read: Callable[[Message, list[int]], T]) -> Deferred[T | Refused]:
        identifier = next(self._identifiers)
        try:
            if self._channel is None:
                self._channel = self._connect()
            self._channel.send({"id": identifier, **question})
        except OSError as error:
            return succeed(Refused(temporary=True, reason=f"no helper: {error}"))
        answer: Deferred[T | Refused] = Deferred()
        self._waiting[identifier] = answer, read
        return answer

    def _connect(self) -> ReactorChannel:
        connection = connect_channel(self._path, timeout=0.5)
        return ReactorChannel(self._reactor, connection, self._answered, self._lost)

    def _answered(self, message: Message, descriptors: list[int]) -> None:
        waiting = self._waiting.pop(int(message.get("id", 0)), None)
        if waiting is None:
            close_all(descriptors)
            return
        answer, read = waiting
        answer.callback(read(message, descriptors))

    def _lost(self) -> None:
        self._channel = None
        waiting, self._waiting = self._waiting, {}
        for answer, _ in waiting.values():
            answer.callback(Refused(temporary=True, reason="the helper was restarted"))


def _granted(message: Message, descriptors: list[int]) -> Granted | Refused:
    if "account" in message and len(descriptors) <= 1:
        stream, pid = descriptors[0] if descriptors else -1, int(message.get("pid", 0))
        return Granted(account_from(message["account"]), stream, pid, to_octets(message["signature"]))
    close_all(descriptors)
    return _refused(message)


def _challenge(message: Message, descriptors: list[int]) -> Challenge | Refused:
    close_all(descriptors)
    return challenge_from(message["challenge"]) if "challenge" in message else _refused(message)


def _refused(message: Message) -> Refused:
    return refused_from(message.get("refused", {"temporary": True, "reason": "the helper failed"}))
