"""A guest's connection to the session host of a mailbox's owner: requests in threads, news in one of its own.

Requests are `{"id", "op", …}`; an answer has the request's id and `{"done": …}` or an error of the store's
contract. What the owner's host says of an open mailbox by itself is `{"news": handle, …}`. Before a request's
answer is given to who waits for it, the news that came with it is known (`heard`).

The other side is another user's process: it may say anything, late or never. What is malformed, or an answer
that does not come in time, ends the connection; all that wait are told, and so is each open mailbox.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from typing import Any, Final, Protocol

from mailserver.guests.frames import BadFrame, Header, prepare, receive_frame, send_frame
from mailserver.guests.values import mapping, number, unpack_error
from mailserver.store.contract import MailboxBusy, StoreFailure

PATIENCE: Final = 300.0  # seconds for an answer: locks are waited for, and much may be copied
SHORT_PATIENCE: Final = 15.0  # where a whole LIST would wait
_MOST_WAITING: Final = 8  # threads of this process, which has its own mail to look after too
_waiting = threading.BoundedSemaphore(_MOST_WAITING)
_Answer = tuple[Any, Sequence[bytes]]


class Hearer(Protocol):
    """An open mailbox."""

    def heard(self, state: Mapping[str, Any], pieces: Sequence[bytes]) -> None:
        """What is new of it is known. In the connection's thread. Raises BadFrame."""

    def tell(self) -> None:
        """Who listens is told that there is news."""


class Lost(StoreFailure):
    """The owner's session host is gone, or does not answer. Temporary."""


def lost() -> Lost:
    """The same for whatever is lost."""
    return Lost("The mailbox's server process is not available for now")


class Connection:
    """See the module. Takes the socket over."""

    def __init__(self, connection: socket.socket, patience: float = PATIENCE) -> None:
        prepare(connection)
        self._socket = connection
        self._patience = patience
        self._sending = threading.Lock()
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[Future[_Answer], Hearer | None]] = {}
        self._hearers: dict[int, Hearer] = {}
        self.is_open = True
        self._thread = threading.Thread(target=self._run, name="guest", daemon=True)
        self._thread.start()

    def ask(
        self,
        op: str,
        arguments: Header | None = None,
        pieces: Sequence[bytes] = (),
        hearer: Hearer | None = None,
        patience: float | None = None,
    ) -> _Answer:
        """What the owner's host answers, and the octets beside it. *Blocking.* Raises StoreError.

        `hearer` gets the news that comes with the answer.
        """
        if not _waiting.acquire(timeout=SHORT_PATIENCE):
            raise MailboxBusy("Too much is being done in mailboxes of other users: try again")
        try:
            return self._ask(op, arguments or {}, pieces, hearer, patience or self._patience)
        finally:
            _waiting.release()

    def _ask(
        self, op: str, arguments: Header, pieces: Sequence[bytes], hearer: Hearer | None, patience: float
    ) -> _Answer:
        answer: Future[_Answer] = Future()
        with self._guard:
            if not self.is_open:
                raise lost()
            identifier = next(self._numbers)
            self._asked[identifier] = answer, hearer
        try:
            with self._sending:
                send_frame(self._socket, {**arguments, "id": identifier, "op": op}, pieces)
            return answer.result(patience)
        except BadFrame as error:
            self._asked.pop(identifier, None)
            raise StoreFailure("That is too much for one command: take fewer messages at a time") from error
        except (OSError, TooLate) as error:
            self.close()
            raise lost() from error

    def attach(self, handle: int, hearer: Hearer) -> None:
        """The mailbox hears its news."""
        with self._guard:
            self._hearers[handle] = hearer
        if not self.is_open:
            hearer.tell()

    def detach(self, handle: int) -> None:
        """The mailbox hears nothing any more."""
        with self._guard:
            self._hearers.pop(handle, None)

    @property
    def is_idle(self) -> bool:
        """Whether nobody has a mailbox open or waits."""
        with self._guard:
            return not self._asked and not self._hearers

    def close(self) -> None:
        """The connection ends; whoever waits is told."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            while (received := receive_frame(self._socket)) is not None:
                self._heard(*received)
        except (BadFrame, OSError):
            pass  # as where the other side has closed
        finally:
            self._end()

    def _heard(self, header: Header, pieces: Sequence[bytes]) -> None:
        if "news" in header:
            hearer = self._hearers.get(number(header["news"]))
            if hearer is not None:
                hearer.heard(mapping(header.get("state")), pieces)
                hearer.tell()
            return
        answer, hearer = self._asked.pop(number(header.get("id"), 2**53), (None, None))
        if answer is None:
            raise BadFrame("an answer to nothing")
        try:
            if hearer is not None and "state" in header:
                hearer.heard(mapping(header["state"]), pieces[-2:])
                pieces = pieces[:-2]
            if "error" in header:
                answer.set_exception(unpack_error(header))
            else:
                answer.set_result((header.get("done"), pieces))
        except BadFrame:
            answer.set_exception(lost())
            raise
        if hearer is not None:
            hearer.tell()

    def _end(self) -> None:
        with self._guard:
            self.is_open = False
            asked, self._asked = [*self._asked.values()], {}
            hearers = [*self._hearers.values()]
        self._socket.close()
        for answer, _ in asked:
            answer.set_exception(lost())
        for hearer in hearers:
            hearer.tell()
