"""The owner's side: his session host does for a guest what the guest's rights allow, and nothing else.

Who the guest is says the helper, by way of the zygote (`introductions`). The guest's host is a process of
another user's and may send anything: every request goes to a store that has only the owner's mailboxes,
behind the same gate as where all mail has one owner (`store.sharing`), as that guest; what is not a request
ends the connection. A connection does a few requests at once and reads no further meanwhile; it has so many
mailboxes open, and large requests come one after the other.

A connection's thread ends with it; what the guest had open is closed then.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mailserver.guests.frames import BadFrame, Header, prepare, receive_frame, send_frame
from mailserver.guests.served_mailbox import ServedMailbox
from mailserver.guests.served_names import NAMED, Named
from mailserver.guests.values import mailbox_name, number, pack_error, text
from mailserver.maillog import MailLog
from mailserver.store.contract import AccountStore, MailboxBusy, StoreError

MOST_OPEN: Final = 100  # mailboxes of one connection
_AT_ONCE: Final = 4  # requests of one connection
_LARGE: Final = 1024 * 1024  # octets of a request
_PATIENCE: Final = 60.0  # seconds that a large one may wait for others
_large = threading.BoundedSemaphore(4)  # of all guests of this process
_Result = tuple[Header, list[bytes]]


class GuestService:
    """One guest's connection, served by `run` until either side ends it.

    `store` is the owner's mailboxes as the guest may use them, whose names begin with `prefix`.
    `may_name_all`: rights for everybody may be given (`acl_anyone`). `largest_message` is in octets.
    """

    def __init__(
        self,
        connection: socket.socket,
        store: AccountStore,
        prefix: str,
        log: MailLog,
        guest: str,
        may_name_all: bool = False,
        largest_message: int = 0,
    ) -> None:
        prepare(connection)
        self._socket = connection
        self._store = store
        self._names = Named(store, prefix, may_name_all)
        self._prefix = prefix
        self._log = log
        self._guest = guest
        self._largest_message = largest_message
        self._sending = threading.Lock()
        self._telling = threading.Lock()
        self._guard = threading.Lock()
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._open: dict[int, ServedMailbox] = {}
        self._last_handle = 0
        self._news: set[int] = set()
        self._has_news = threading.Condition(self._guard)
        self._is_large = False  # whether the request that is being read counts as large
        self._is_ended = False

    def run(self) -> None:
        """Serves until the connection ends. Then all is given back. *Blocking.*"""
        teller = threading.Thread(target=self._tell_news, name="guest news", daemon=True)
        teller.start()
        try:
            with ThreadPoolExecutor(_AT_ONCE, "guest") as pool:
                while (received := receive_frame(self._socket, self._admit)) is not None:
                    self._room.acquire()
                    self._is_large, is_large = False, self._is_large
                    pool.submit(self._serve, *received, is_large)
        except (BadFrame, OSError) as error:
            self._warn(f"connection ended: {error}")
        finally:
            if self._is_large:
                _large.release()
            self.close()
            with self._guard:
                self._is_ended = True
                self._has_news.notify()
            teller.join()
            self._socket.close()
            for handle in list(self._open):
                self._close(handle)

    def _admit(self, octets: int) -> None:
        if octets > _LARGE:
            if not _large.acquire(timeout=_PATIENCE):
                raise BadFrame("too many large requests at once")
            self._is_large = True

    def close(self) -> None:
        """The connection ends, and `run` soon. Safe in any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it had ended

    def _warn(self, what: str) -> None:
        self._log.write("imap", f"Warning: guest {self._guest}: {what}")

    # Requests.

    def _serve(self, header: Header, pieces: Sequence[bytes], is_large: bool) -> None:
        try:
            self._answer(number(header.get("id"), 2**53), header, pieces)
        except (BadFrame, OSError) as error:
            self._warn(str(error) or type(error).__name__)
            self.close()
        except Exception as error:  # a bug: the guest's connection ends, the host goes on
            self._log.write("imap", f"Error: guest {self._guest}: {type(error).__name__}: {error}")
            self.close()
        finally:
            if is_large:
                _large.release()
            self._room.release()

    def _answer(self, identifier: int, header: Header, pieces: Sequence[bytes]) -> None:
        op = text(header.get("op"))
        served: ServedMailbox | None = None
        done: _Result
        try:
            if op in ("open", "borrow"):
                served = self._opened(op, mailbox_name(header.get("name"), self._prefix))
                done = {"done": served.handle}, []
            elif op == "close":
                self._close(number(header.get("mailbox")))
                done = {"done": True}, []
            elif op in NAMED:
                done = {"done": NAMED[op](self._names, header, pieces)}, []
            else:
                served = self._served(header.get("mailbox"))
                result, octets = served.perform(op, header, pieces, self._served)
                done = {"done": result}, octets
        except StoreError as error:
            done = pack_error(error), []
        self._tell_all()  # whatever else the guest has open of what was changed
        if served is None:
            self._send({"id": identifier, **done[0]}, done[1])
        else:
            served.answer(op, lambda state: self._with_state(identifier, done, state))

    def _with_state(self, identifier: int, done: _Result, state: tuple[Header, list[bytes]] | None) -> None:
        header, pieces = done
        if state is None:
            self._send({"id": identifier, **header}, pieces)
        else:
            self._send({"id": identifier, **header, "state": state[0]}, [*pieces, *state[1]])

    def _send(self, header: Header, pieces: Sequence[bytes]) -> None:
        with self._sending:
            send_frame(self._socket, header, pieces)

    # Open mailboxes.

    def _served(self, handle: object) -> ServedMailbox:
        with self._guard:
            found = self._open.get(number(handle))
        if found is None:
            raise BadFrame("no such open mailbox")
        return found

    def _opened(self, op: str, name: str) -> ServedMailbox:
        with self._guard:
            if len(self._open) >= MOST_OPEN:
                raise MailboxBusy("Too many mailboxes of that user are open")
            self._last_handle += 1
            handle = self._last_handle
        served = ServedMailbox(
            self._store, name, handle, is_lasting=op == "open", largest_message=self._largest_message
        )
        with self._guard:
            self._open[handle] = served
            served.listen(lambda: self._note(handle))
        return served

    def _close(self, handle: int) -> None:
        with self._guard:
            served = self._open.pop(handle, None)
        if served is not None:
            try:
                served.close()
            except StoreError as error:
                self._warn(str(error))

    # News.

    def _note(self, handle: int) -> None:
        """Called after every change, in the thread that made it."""
        with self._guard:
            self._news.add(handle)
            self._has_news.notify()

    def _tell_news(self) -> None:
        while True:
            with self._guard:
                while not self._news and not self._is_ended:
                    self._has_news.wait()
                if self._is_ended:
                    return
            try:
                self._tell_all()
            except (BadFrame, OSError):
                self.close()

    def _tell_all(self) -> None:
        """What is new of any open mailbox is with the guest."""
        with self._telling:
            with self._guard:
                some = [self._open[handle] for handle in self._news if handle in self._open]
                self._news = set()
            for served in some:
                served.tell(self._teller(served.handle))

    def _teller(self, handle: int) -> Callable[[tuple[Header, list[bytes]]], None]:
        return lambda state: self._send({"news": handle, "state": state[0]}, state[1])
