"""Another user's mailbox as a guest's session host has it: a copy of its list, kept up by the owner's host.

What may be read at any time is the copy, which changes only in the connection's thread: `highest_modseq`
last. Each answer brings what is new, so that who asked for a change finds it made. Rights are the owner's
host's to judge, on each request; `rights` here is what it said last.

Facts of messages (ENVELOPE and the like) are made here of what was read, and kept in memory for as long as
the mailbox is open: what the owner's process remembers could be anything, and goes to the client as it is.

When the owner's host ends, a mailbox that was opened is a mailbox that was replaced: its sessions end with
BYE, as they cannot know what they missed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from mailserver.guests.connection import Connection, Lost
from mailserver.guests.frames import BadFrame
from mailserver.guests.values import (
    LARGEST_MODSEQ,
    State,
    listed,
    number,
    pack_flags,
    pack_uids,
    unpack_state,
    unpack_uids,
)
from mailserver.message.header import header_end
from mailserver.store.acl import NONE, Rights
from mailserver.store.contract import (
    AccessRevoked,
    Changes,
    Flags,
    FlagsChanged,
    Mailbox,
    MailboxReplaced,
    Message,
    MessageGone,
    Modseq,
    NewMessage,
    StoreFailure,
    StoreMode,
    Target,
    Uid,
)
from mailserver.store.guarded import denied
from mailserver.store.listeners import Listeners

READ_AT_ONCE: Final = 4 * 1024 * 1024  # octets asked for in one request
_MOST_FACTS: Final = 8 * 1024 * 1024  # octets
_MOST_GONE: Final = 10_000  # messages that are remembered
_Gone = tuple[Modseq, Sequence[Uid]]


class GuestMailbox(Mailbox):
    """See the module."""

    is_guarded = True
    name = ""
    uidvalidity = 0
    mailbox_id = ""

    def __init__(self, connection: Connection, prefix: str, is_selected: bool) -> None:
        """Empty until `heard`. `is_selected`: a session keeps it open, else it is for one piece of work."""
        self.connection = connection
        self.handle = 0
        self._prefix = prefix
        self._is_selected = is_selected
        self._rights: Rights = NONE
        self._was_readable = False
        self._uidnext = Uid(1)
        self._modseq = self._since = Modseq(0)  # news is known since then
        self._recent = Uid(1)
        self._messages: dict[Uid, Message] = {}
        self._uids: Sequence[Uid] = array("I")  # type: ignore[assignment]
        self._keywords: Sequence[bytes] = []
        self._gone: list[_Gone] = []
        self._last: dict[Uid, Message] = {}  # of those that are gone
        self._listeners = Listeners()
        self._facts: dict[tuple[str, Uid], bytes] = {}
        self._fact_octets = 0

    def leave(self) -> None:
        """The owner's host has the mailbox back; where it is gone, it has. *Blocking.*"""
        self.connection.detach(self.handle)
        with suppress(StoreFailure):
            self.connection.ask("close", {"mailbox": self.handle})

    # News.

    def heard(self, state: Mapping[str, Any], pieces: Sequence[bytes]) -> None:
        """See `Hearer.heard`."""
        self._learn(unpack_state(state, pieces, self._prefix))

    def tell(self) -> None:
        """See `Hearer.tell`."""
        self._listeners.tell()

    def _learn(self, state: State) -> None:
        if self.uidvalidity and (self.uidvalidity, self.mailbox_id) != (state.uidvalidity, state.mailbox_id):
            raise BadFrame("another mailbox")
        self.name, self.uidvalidity, self.mailbox_id = state.name, state.uidvalidity, state.mailbox_id
        new = state.readable
        if new is not None:
            if new.modseq < self._modseq:
                raise BadFrame("modseqs go down")
            self._keywords = new.keywords
            self._change(new.messages, [uid for uid in new.gone if uid in self._messages], new.modseq)
            self._uidnext, self._recent = new.uidnext, new.recent
            if not self._was_readable:
                self._since = new.modseq
            self._was_readable = True
            self._modseq = new.modseq
        self._rights = state.rights

    def _change(self, messages: Sequence[Message], gone: Sequence[Uid], modseq: Modseq) -> None:
        fresh = [message for message in messages if message.uid not in self._messages]
        if fresh and self._uids and fresh[0].uid <= self._uids[-1]:
            raise BadFrame("a new message among old ones")
        if fresh or gone:
            there = dict(self._messages)  # others may be looking at the old one
            there.update((message.uid, message) for message in messages)
            for uid in gone:
                self._last[uid] = there.pop(uid)
            self._messages = there
            self._uids = array("I", there)  # type: ignore[assignment]
        else:
            for message in messages:
                self._messages[message.uid] = message
        if gone:
            self._gone = [*self._gone, (modseq, gone)]
            self._forget()

    def _forget(self) -> None:
        while len(self._last) > _MOST_GONE:
            modseq, uids = self._gone[0]
            self._gone = self._gone[1:]
            self._since = modseq
            for uid in uids:
                self._last.pop(uid, None)

    # What may be read at any time.

    def _readable(self) -> None:
        if "r" not in self._rights:
            if self._was_readable:
                raise AccessRevoked("Permission to read the mailbox was taken back")
            raise denied()
        if not (self._was_readable or self._is_selected):  # for work in a thread: targets need no list
            self.ask("refresh")

    @property
    def rights(self) -> Rights:  # type: ignore[override]
        """See `Mailbox.rights`."""
        return self._rights

    @property
    def uidnext(self) -> Uid:  # type: ignore[override]
        """See `Mailbox`."""
        self._readable()
        return self._uidnext

    @property
    def highest_modseq(self) -> Modseq:  # type: ignore[override]
        """See `Mailbox`."""
        self._readable()
        return self._modseq

    @property
    def messages(self) -> Mapping[Uid, Message]:  # type: ignore[override]
        """See `Mailbox`."""
        self._readable()
        return self._messages

    @property
    def uids(self) -> Sequence[Uid]:  # type: ignore[override]
        """See `Mailbox`."""
        self._readable()
        return self._uids

    @property
    def keywords(self) -> Sequence[bytes]:  # type: ignore[override]
        """See `Mailbox`."""
        self._readable()
        return self._keywords

    def peek_recent(self) -> Uid:
        """See `Mailbox.peek_recent`."""
        self._readable()
        return self._recent

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.subscribe`."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.unsubscribe`."""
        self._listeners.remove(listener)

    def changes_since(self, modseq: Modseq) -> Changes:
        """See `Mailbox.changes_since`. From before the mailbox was opened nobody knows what is gone."""
        self._readable()
        highest, messages, uids = self._modseq, self._messages, self._uids
        changed = [uid for uid in uids if (found := messages.get(uid)) is not None and found.modseq > modseq]
        if modseq >= self._since:
            gone = {uid for when, some in self._gone if when > modseq for uid in some}
            return Changes(highest, changed, sorted(gone))
        there = set(uids)
        return Changes(highest, changed, [Uid(n) for n in range(1, self._uidnext) if n not in there], False)

    def expunged_message(self, uid: Uid) -> Message | None:
        """See `Mailbox.expunged_message`."""
        self._readable()
        return self._last.get(uid)

    # Asking.

    def ask(self, op: str, pieces: Sequence[bytes] = (), **arguments: object) -> tuple[Any, Sequence[bytes]]:
        """The owner's host did it; what is new of the mailbox is known. Raises StoreError."""
        try:
            return self.connection.ask(op, {**arguments, "mailbox": self.handle}, pieces, self)
        except Lost as error:
            if self._is_selected:
                raise MailboxReplaced(str(error)) from error
            raise

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """What is read of an answer within must be in order, else the connection ends. Raises StoreError."""
        try:
            yield
        except BadFrame as error:
            self.connection.close()
            raise MailboxReplaced("The mailbox's server process gave no answer") from error

    def check_rights(self) -> None:
        """See `Mailbox.check_rights`."""
        self.ask("check_rights")

    def as_target(self) -> Target:
        """See `Mailbox.as_target`. Flags that may not be set are left out by the owner's host."""
        self.check_rights()
        if "i" not in self._rights:
            raise denied()
        return Target(self)

    def refresh(self) -> bool:
        """See `Mailbox.refresh`."""
        before = self._modseq
        self.ask("refresh")
        return self._modseq > before

    def claim_recent(self) -> range:
        """See `Mailbox.claim_recent`."""
        done, _ = self.ask("claim_recent")
        with self._checked():
            first, last = (number(each, 2**32) for each in listed(done, 2))
            return range(first, last)

    # Reading.

    def read(self, uid: Uid) -> bytes:
        """See `Mailbox.read`."""
        _, contents = self.read_batch([uid], 1)
        if uid not in contents:
            raise MessageGone("The message is gone")
        return contents[uid]

    def read_batch(self, uids: Sequence[Uid], most: int) -> tuple[int, Mapping[Uid, bytes]]:
        """See `Mailbox.read_batch`; in as many requests as it takes."""
        contents: dict[Uid, bytes] = {}
        octets = taken = 0
        while taken < len(uids) and octets < most:
            some = uids[taken : taken + 10_000]
            done, pieces = self.ask("read_batch", [pack_uids(some)], most=min(most - octets, READ_AT_ONCE))
            with self._checked():
                taken += number(done, len(some), 1)
                there = unpack_uids(pieces[0] if pieces else b"", is_ascending=False)
                if not set(some).issuperset(there) or len(there) != len(pieces) - 1:
                    raise BadFrame("other messages")
            contents.update(zip(there, pieces[1:], strict=True))
            octets += sum(map(len, pieces[1:]))
        return taken, contents

    def sizes(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.sizes`."""
        return self._numbers("sizes", uids)

    def save_dates(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.save_dates`."""
        return self._numbers("save_dates", uids)

    def _numbers(self, op: str, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        done, pieces = self.ask(op, [pack_uids(uids)])
        with self._checked():
            there = self._among(uids, pieces, 0)
            numbers = [number(each, LARGEST_MODSEQ, -(2**40)) for each in listed(done, len(uids))]
            if len(numbers) != len(there):
                raise BadFrame("not a number for each message")
            return dict(zip(there, numbers, strict=True))

    def _among(self, uids: Sequence[Uid], pieces: Sequence[bytes], index: int) -> list[Uid]:
        found = unpack_uids(pieces[index] if index < len(pieces) else b"\0", is_ascending=False)
        if not set(uids).issuperset(found):
            raise BadFrame("messages that nobody asked for")
        return found

    def facts(
        self, uids: Sequence[Uid], make: Callable[[bytes], bytes], kind: str, of_header: bool = False
    ) -> Mapping[Uid, bytes]:
        """See `Mailbox.facts`, and the module."""
        known = dict(self.known_facts(uids, kind))
        missing = [uid for uid in uids if uid not in known]
        while missing:
            taken, contents = self.read_batch(missing, READ_AT_ONCE)
            missing = missing[taken:]
            for uid, content in contents.items():
                known[uid] = fact = make(content[: header_end(content)] if of_header else content)
                self._keep(kind, uid, fact)
        return known

    def _keep(self, kind: str, uid: Uid, fact: bytes) -> None:
        self._fact_octets += len(fact) + 100
        if self._fact_octets > _MOST_FACTS:
            self._facts, self._fact_octets = {}, 0
        self._facts[kind, uid] = fact

    def known_facts(self, uids: Sequence[Uid], kind: str) -> Mapping[Uid, bytes]:
        """See `Mailbox.known_facts`."""
        facts = self._facts
        return {uid: fact for uid in uids if (fact := facts.get((kind, uid))) is not None}

    def search_text(
        self, uids: Sequence[Uid], needle: str, with_header: bool
    ) -> tuple[Sequence[Uid], Sequence[Uid]]:
        """See `Mailbox.search_text`."""
        _, pieces = self.ask("search_text", [pack_uids(uids)], needle=needle, with_header=with_header)
        with self._checked():
            return self._among(uids, pieces, 0), self._among(uids, pieces, 1)

    def may_hold(
        self, uids: Sequence[Uid], pieces: Sequence[Sequence[str]], with_header: bool
    ) -> Sequence[Uid]:
        """See `Mailbox.may_hold`."""
        groups = [list(group) for group in pieces]
        _, found = self.ask("may_hold", [pack_uids(uids)], groups=groups, with_header=with_header)
        with self._checked():
            return self._among(uids, found, 0)

    # Writing.

    def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """See `Mailbox.append`."""
        about = [[pack_flags(each.flags), each.internal_date] for each in messages]
        _, pieces = self.ask("append", [each.content for each in messages], messages=about)
        with self._checked():
            uids = unpack_uids(pieces[0] if pieces else b"")
            if len(uids) != len(messages):
                raise BadFrame("not a UID for each message")
            return uids

    def change_flags(
        self,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None = None,
    ) -> FlagsChanged:
        """See `Mailbox.change_flags`."""
        _, pieces = self.ask(
            "change_flags", [pack_uids(uids)], flags=pack_flags(flags), mode=mode.value,
            unchanged_since=unchanged_since,
        )  # fmt: skip
        with self._checked():
            return FlagsChanged(sorted(self._among(uids, pieces, 0)), sorted(self._among(uids, pieces, 1)))

    def expunge(self, uids: Sequence[Uid] | None = None) -> Sequence[Uid]:
        """See `Mailbox.expunge`."""
        _, pieces = self.ask("expunge", [] if uids is None else [pack_uids(uids)])
        with self._checked():
            return unpack_uids(pieces[0] if pieces else b"")

    def remove(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """See `Mailbox.remove`."""
        _, pieces = self.ask("remove", [pack_uids(uids)])
        with self._checked():
            return unpack_uids(pieces[0] if pieces else b"")

    def copy(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.copy`; by the owner's host alone where both mailboxes are his."""
        if isinstance(target, GuestMailbox) and target.connection is self.connection:
            return self._transfer("copy", uids, target)
        target.as_target()  # denied, before anything is read
        known = self.messages
        sources = [uid for uid in uids if uid in known]
        about = [known[uid] for uid in sources]
        _, contents = self.read_batch(sources, LARGEST_MODSEQ)
        if len(contents) < len(sources):
            raise MessageGone("One of the messages is gone")  # all or none
        if not sources:
            return []
        copied = target.append(
            [NewMessage(contents[each.uid], each.flags, each.internal_date) for each in about]
        )
        return [*zip(sources, copied, strict=True)]

    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.move`: into another account a copy, and when that is durable the sources go."""
        if isinstance(target, GuestMailbox) and target.connection is self.connection:
            return self._transfer("move", uids, target)
        self.check_rights()
        if not set("rte") <= self._rights:
            raise denied()
        pairs = self.copy(uids, target)
        self.remove([source for source, _ in pairs])
        return pairs

    def _transfer(self, op: str, uids: Sequence[Uid], target: GuestMailbox) -> Sequence[tuple[Uid, Uid]]:
        _, pieces = self.ask(op, [pack_uids(uids)], target=target.handle)
        with self._checked():
            copies = unpack_uids(pieces[1] if len(pieces) > 1 else b"\0", is_ascending=False)
            sources = self._among(uids, pieces, 0)
            if len(copies) != len(sources):
                raise BadFrame("not a copy for each message")
            return [*zip(sources, copies, strict=True)]
