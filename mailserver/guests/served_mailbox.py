"""A mailbox of the owner's that a guest has open: requests about it, and what its guest was told of it.

States are computed and sent under one lock, so that they arrive in their order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from mailserver.guests.frames import BadFrame, Header
from mailserver.guests.values import (
    LARGEST_MODSEQ,
    Readable,
    State,
    listed,
    number,
    pack_state,
    pack_uids,
    text,
    truth,
    unpack_flags,
    unpack_uids,
)
from mailserver.store.contract import (
    AccountStore,
    Changes,
    Mailbox,
    Modseq,
    NewMessage,
    StoreError,
    StoreMode,
    Uid,
)

READ_AT_ONCE: Final = 4 * 1024 * 1024  # octets: at most, and one message
_MOST_MESSAGES: Final = 100_000  # of one request
_MODES: Final = {each.value: each for each in StoreMode}
_WITHOUT_LIST: Final = frozenset({"borrow", "append", "check_rights", "read_batch"})
_LONGEST_TEXT: Final = 64 * 1024
Packed = tuple[Header, list[bytes]]
Peers = Callable[[object], "ServedMailbox"]
_Result = tuple[Any, list[bytes]]


class ServedMailbox:
    """See the module. Opened by its making, which raises StoreError.

    One that does not last (`is_lasting`) is a target, whose list nobody is told before asking for it.
    """

    def __init__(
        self, store: AccountStore, name: str, handle: int, is_lasting: bool, largest_message: int
    ) -> None:
        self.handle = handle
        self._largest_message = largest_message
        self._exits = ExitStack()
        self._lock = threading.Lock()
        self._is_listed = is_lasting
        self._told: Modseq | None = None
        self._last: object = None
        self._hint: Callable[[], None] | None = None
        if is_lasting:
            self.mailbox = store.open(name)
            self._exits.callback(store.close, self.mailbox)
        else:
            self.mailbox = self._exits.enter_context(store.borrow(name))

    def listen(self, hint: Callable[[], None]) -> None:
        """The function is called after every change."""
        self._hint = hint
        self.mailbox.subscribe(hint)

    def close(self) -> None:
        """The store has the mailbox back. Raises StoreError."""
        if self._hint is not None:
            self.mailbox.unsubscribe(self._hint)
        self._exits.close()

    # What the guest knows.

    def answer(self, op: str, send: Callable[[Packed | None], None]) -> None:
        """`send` was called with what is new."""
        with self._lock:
            self._is_listed = self._is_listed or op not in _WITHOUT_LIST
            send(self._state())

    def tell(self, send: Callable[[Packed], None]) -> None:
        """`send` was called where anything is new."""
        with self._lock:
            before = self._last
            state = self._state()
            if state is not None and self._last != before:
                send(state)

    def _state(self) -> Packed | None:
        """None where nothing can be said: a request will say why."""
        try:
            mailbox, rights = self.mailbox, self.mailbox.rights
            new = self._readable() if "r" in rights and self._is_listed else None
            self._last = mailbox.name, rights, self._told, tuple(new.keywords) if new else ()
            header, pieces = pack_state(
                State(mailbox.name, mailbox.uidvalidity, mailbox.mailbox_id, rights, new)
            )
        except StoreError:
            return None
        return header, [*pieces]

    def _readable(self) -> Readable:
        mailbox = self.mailbox
        if self._told is None:
            mailbox.wake()
            highest = mailbox.highest_modseq
            changes = Changes(highest, [*mailbox.uids])
        else:
            changes = mailbox.changes_since(self._told)
        messages = mailbox.messages
        there = [found for uid in changes.changed if (found := messages.get(uid)) is not None]
        new = Readable(
            mailbox.uidnext,
            changes.highest_modseq,
            mailbox.peek_recent(),
            [*mailbox.keywords],
            there,
            changes.expunged,
        )
        self._told = changes.highest_modseq
        return new

    # What the guest asks.

    def perform(self, op: str, header: Header, pieces: Sequence[bytes], peer: Peers) -> _Result:
        """The result and octets beside it. `peer` finds another open mailbox. Raises StoreError, BadFrame."""
        if op in ("copy", "move"):
            return self._transfer(op, pieces, peer(header.get("target")).mailbox)
        try:
            act = _OPS[op]
        except KeyError as error:
            raise BadFrame("no such request") from error
        return act(self, header, pieces)

    def _check_rights(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        self.mailbox.check_rights()
        return True, []

    def _refresh(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        self.mailbox.refresh()
        return True, []

    def _claim_recent(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        claimed = self.mailbox.claim_recent()
        return [claimed.start, claimed.stop], []

    def _read_batch(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        most = min(number(header.get("most"), LARGEST_MODSEQ, 1), READ_AT_ONCE)
        taken, contents = self.mailbox.read_batch(_uids(pieces), most)
        return taken, [pack_uids(contents), *contents.values()]

    def _sizes(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        return _numbers(self.mailbox.sizes(_uids(pieces)))

    def _save_dates(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        return _numbers(self.mailbox.save_dates(_uids(pieces)))

    def _search_text(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        needle, with_header = text(header.get("needle"), _LONGEST_TEXT), truth(header.get("with_header"))
        found, unknown = self.mailbox.search_text(_uids(pieces), needle, with_header)
        return True, [pack_uids(found), pack_uids(unknown)]

    def _may_hold(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        groups = [
            [text(each, _LONGEST_TEXT) for each in listed(group, 10_000)]
            for group in listed(header.get("groups"), 10_000)
        ]
        found = self.mailbox.may_hold(_uids(pieces), groups, truth(header.get("with_header")))
        return True, [pack_uids(found)]

    def _append(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        about = listed(header.get("messages"), _MOST_MESSAGES)
        if len(about) != len(pieces):
            raise BadFrame("not a content for each message")
        messages = [self._message(each, content) for each, content in zip(about, pieces, strict=True)]
        return True, [pack_uids(self.mailbox.append(messages))]

    def _message(self, about: object, content: bytes) -> NewMessage:
        flags, date = listed(about, 2)
        if not content or content.count(b"\n") != content.count(b"\r\n") or b"\0" in content:
            raise BadFrame("no message")
        if self._largest_message and len(content) > self._largest_message:
            raise BadFrame("a message that is too large")
        return NewMessage(
            content, unpack_flags(flags), None if date is None else number(date, 2**40, -(2**40))
        )

    def _change_flags(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        mode = _MODES.get(text(header.get("mode")))
        if mode is None:
            raise BadFrame("no such mode")
        limit = header.get("unchanged_since")
        done = self.mailbox.change_flags(
            _uids(pieces),
            unpack_flags(header.get("flags")),
            mode,
            None if limit is None else Modseq(number(limit, LARGEST_MODSEQ)),
        )
        return True, [pack_uids(done.changed), pack_uids(done.modified)]

    def _expunge(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        return True, [pack_uids(self.mailbox.expunge(_uids(pieces) if pieces else None))]

    def _remove(self, header: Header, pieces: Sequence[bytes]) -> _Result:
        return True, [pack_uids(self.mailbox.remove(_uids(pieces)))]

    def _transfer(self, op: str, pieces: Sequence[bytes], target: Mailbox) -> _Result:
        transfer = self.mailbox.copy if op == "copy" else self.mailbox.move
        pairs = transfer(_uids(pieces), target)
        return True, [pack_uids(source for source, _ in pairs), pack_uids(copy for _, copy in pairs)]


def _uids(pieces: Sequence[bytes]) -> list[Uid]:
    if len(pieces) != 1:
        raise BadFrame("no messages are named")
    return unpack_uids(pieces[0], is_ascending=False)


def _numbers(found: Mapping[Uid, int]) -> _Result:
    return [*found.values()], [pack_uids(found)]


_Op = Callable[[ServedMailbox, Header, Sequence[bytes]], _Result]
_OPS: Final[Mapping[str, _Op]] = {
    "check_rights": ServedMailbox._check_rights,
    "refresh": ServedMailbox._refresh,
    "claim_recent": ServedMailbox._claim_recent,
    "read_batch": ServedMailbox._read_batch,
    "sizes": ServedMailbox._sizes,
    "save_dates": ServedMailbox._save_dates,
    "search_text": ServedMailbox._search_text,
    "may_hold": ServedMailbox._may_hold,
    "append": ServedMailbox._append,
    "change_flags": ServedMailbox._change_flags,
    "expunge": ServedMailbox._expunge,
    "remove": ServedMailbox._remove,
}
