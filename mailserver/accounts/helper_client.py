"""What a role without rights asks the helper for: who exists, and secret files that were named to it.

Blocking, one connection a question; safe from any thread. A helper that does not answer is a
temporary failure, never "no such user".
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.accounts.codec import account_from
from mailserver.rights.listeners import connect_channel
from mailserver.rights.messages import BadMessage, Message, close_all, receive, send, to_octets

_STAMP_SECONDS: Final = 5.0
_LEAVE_PATIENCE: Final = 5.0
_STAMP_PATIENCE: Final = 1.0  # seconds: the reactor waits


def _ask(path: str, question: Message, timeout: float | None = None) -> Message:
    """The helper's answer. Raises OSError."""
    try:
        with connect_channel(path) as connection:
            if timeout is not None:
                connection.settimeout(timeout)
            send(connection, {"id": 1, **question})
            received = receive(connection, large=True)
    except BadMessage as error:
        raise OSError(f"the helper's answer: {error}") from error
    if received is None:
        raise OSError("the helper ended before it answered")
    answer, descriptors = received
    close_all(descriptors)
    return answer


class HelperDirectory:
    """`AccountDirectory` by way of the helper's channel at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _ask(self, question: Message) -> Message:
        try:
            answer = _ask(self._path, question)
        except OSError as error:
            raise TemporaryAccountFailure(f"the helper does not answer: {error}") from error
        if "temporary" in answer or "error" in answer:
            raise TemporaryAccountFailure(str(answer.get("temporary", "the helper failed")))
        return answer

    def lookup(self, name: str) -> Account | None:
        """See `AccountDirectory.lookup`."""
        found = self._ask({"lookup": name})["found"]
        return None if found is None else account_from(found)

    def names(self) -> Iterator[str]:
        """See `AccountDirectory.names`."""
        return iter(self._ask({"names": True})["names"])


class HelperPenalties:
    """`Penalties` by way of the helper's channel at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def penalties(self) -> list[tuple[str, int, float]]:
        """See `Penalties.penalties`."""
        return [
            (place, guesses, age)
            for place, guesses, age in _ask(self._path, {"penalties": True})["penalties"]
        ]

    def forgive(self, where: str) -> bool:
        """See `Penalties.forgive`."""
        return bool(_ask(self._path, {"forgive": where})["forgiven"])


def leave_penalties(path: str) -> None:
    """The helper at `path` has left its penalties to its successor. *Blocking.* Raises OSError."""
    _ask(path, {"leave": True}, _LEAVE_PATIENCE)


class HelperSecrets:
    """Secret files by way of the helper's channel at `path`. *Blocking*, for well under a millisecond.

    A mark of a file is asked for at most once in _STAMP_SECONDS: each handshake wants to know it. Where
    the helper does not answer the last one stands.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stamps: dict[str, tuple[float, tuple[int, ...]]] = {}

    def read(self, secret: str) -> bytes:
        """The content. Raises OSError."""
        return read_secret(self._path, secret)

    def stamp(self, secret: str) -> tuple[int, ...]:
        """A mark that changes when the file does. Raises OSError."""
        asked, stamp = self._stamps.get(secret, (-math.inf, ()))
        if self._clock() - asked > _STAMP_SECONDS:
            try:
                stamp = self._ask_stamp(secret)
            except OSError:
                if not stamp:
                    raise
            self._stamps[secret] = self._clock(), stamp
        return stamp

    def _ask_stamp(self, secret: str) -> tuple[int, ...]:
        answer = _ask(self._path, {"stamp": secret}, _STAMP_PATIENCE)
        if "stamp" not in answer:
            raise PermissionError(f"the helper does not see {os.path.basename(secret)}")
        return tuple(answer["stamp"])


def auth_connection(path: str, auth_socket: str) -> int:
    """A connection to the Dovecot at that socket, from the helper at `path`. *Blocking.* Raises OSError."""
    with connect_channel(path) as connection:
        send(connection, {"id": 1, "auth-socket": auth_socket})
        try:
            received = receive(connection)
        except BadMessage as error:
            raise OSError(f"the helper's answer: {error}") from error
    if received is None or len(received[1]) != 1:
        raise ConnectionError(f"the helper cannot connect to {auth_socket}")
    return received[1][0]


def read_secret(path: str, secret: str) -> bytes:
    """The content of a secret file, from the helper at `path`. Raises OSError."""
    answer = _ask(path, {"secret": secret})
    if "content" not in answer:
        raise PermissionError(f"the helper does not give {os.path.basename(secret)}")
    return to_octets(answer["content"])
