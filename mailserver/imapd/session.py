"""A logged-in session: the account's store, what is enabled, and what is selected.

Handlers get a `Session` and nothing else of the connection. It outlives every command and
ends with `close`, which gives back all that it holds, whether the client said LOGOUT or fell
silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred

from mailserver.accounts.account import Account
from mailserver.imapd.output import Output
from mailserver.imapd.recall import Recall
from mailserver.imapd.replies import Refusal, Rejection
from mailserver.imapd.rounds import Rounds
from mailserver.imapd.selected import Selected, SyncOptions, applicable_flags, permanent_flags
from mailserver.imapd.settings import ImapSettings
from mailserver.imapd.url_access import Reader
from mailserver.rawlog import RawLog
from mailserver.store.acl import FLAG_RIGHTS, NONE, Rights
from mailserver.store.contract import AccountStore, Mailbox, Message, Uid
from mailserver.threads import Threads
from mailserver.wire import imap_responses as render
from mailserver.wire.imap_namespace import with_separator

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Service:
    """What all sessions of one listener share.

    `reactor` gives intervals and `callFromThread`; `now` the time of day in POSIX seconds; `rounds` looks
    after sessions that idle.
    """

    settings: ImapSettings
    threads: Threads
    reactor: Any
    now: Callable[[], float] = time.time
    rawlog: RawLog | None = None
    rounds: Rounds = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", Rounds(self.reactor, self.settings.poll_interval))


@dataclass(slots=True)
class Counts:
    """What the session did, for its last log line."""

    deleted: int = 0
    expunged: int = 0
    trashed: int = 0
    hdr_count: int = 0
    hdr_bytes: int = 0
    body_count: int = 0
    body_bytes: int = 0


class Watching(Protocol):
    """What a client asked for with NOTIFY; see `notify`."""

    @property
    def hears_selected(self) -> bool:
        """Whether the selected mailbox is told of between commands."""

    @property
    def is_delayed(self) -> bool:
        """Whether EXPUNGE waits for a command."""

    async def tell_new(self, uids: Sequence[Uid]) -> None:
        """What the client wants to know of new messages is told."""

    async def stop(self) -> None:
        """Nothing is told any more, and nothing held."""


@lru_cache(maxsize=256)
def _flag_rights(rights: Rights) -> Rights:
    """Those of the rights that have to do with flags: the same object for all sessions."""
    return rights & FLAG_RIGHTS


_NOTHING_ENABLED: Final[frozenset[str]] = frozenset()  # one object for all sessions


def _nothing() -> None:
    """Nothing."""


class Session:
    """See the module. `next_line` gives the client's next line, for IDLE."""

    __slots__ = (
        "_is_closed", "_is_hinted", "account", "changed", "counts", "current_tag", "current_words", "enabled",
        "next_line", "output", "recall", "selected", "service", "store", "wants_turn", "watch",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        account: Account,
        store: AccountStore,
        output: Output,
        next_line: Callable[[], Deferred[bytes]],
    ) -> None:
        self.service = service
        self.account = account
        self.store = store
        self.output = output
        self.next_line = next_line
        self.counts = Counts()
        self.enabled: frozenset[str] = _NOTHING_ENABLED
        self.current_tag = b""  # of the command at work, for ESEARCH
        self.current_words = b""  # the rest of it, b"" where it has literals
        self.recall = Recall(store)
        self.selected: Selected | None = None
        self.watch: Watching | None = None  # NOTIFY's
        self.wants_turn: Callable[[], None] = _nothing  # asks for `tell_between`, between commands
        self.changed: Callable[[], None] | None = None  # called after changes of the selected mailbox
        self._is_hinted = False
        self._is_closed = False

    @property
    def settings(self) -> ImapSettings:
        """The listener's settings."""
        return self.service.settings

    @property
    def takes_utf8(self) -> bool:
        """Whether names travel as UTF-8. RFC 6855 §3, RFC 9051 §5.1."""
        return "UTF8=ACCEPT" in self.enabled or self.is_rev2

    @property
    def is_rev2(self) -> bool:
        """Whether the client enabled IMAP4rev2. RFC 9051 §6.3.1."""
        return "IMAP4REV2" in self.enabled

    @property
    def is_uid_only(self) -> bool:
        """Whether no message number may be said. RFC 9586 §3."""
        return "UIDONLY" in self.enabled

    @property
    def mailbox_in_use(self) -> Selected:
        """The selected mailbox; a Rejection where there is none."""
        if self.selected is None:
            raise Rejection("No mailbox selected.", b"CLIENTBUG")
        return self.selected

    @property
    def writable_mailbox(self) -> Selected:
        """The selected mailbox, not opened with EXAMINE; else a Refusal."""
        selected = self.mailbox_in_use
        if selected.is_read_only:
            raise Refusal("Mailbox is read-only", b"READ-ONLY")
        return selected

    @property
    def as_reader(self) -> Reader:
        """Who asks for what URLs name."""
        return Reader(self.account.name, self.store)

    def run(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        """The function's result, from a thread."""
        return self.service.threads.run(function, *arguments)

    def name(self, mailbox: str) -> bytes:
        """A mailbox's name as this client reads it."""
        return self.shown(self.told(mailbox))

    def told(self, mailbox: str, is_own: bool | None = None) -> str:
        """A mailbox's name with the prefix that clients are told, `/` between levels. RFC 2342."""
        namespace = self.store.namespace
        if namespace.prefix and (self.store.is_own(mailbox) if is_own is None else is_own):
            return namespace.told(mailbox)
        return mailbox

    def shown(self, told: str) -> bytes:
        """A name or prefix that `told` made, as this client reads it."""
        return render.mailbox(with_separator(told, self.store.namespace.separator), self.takes_utf8)

    @property
    def separator(self) -> bytes:
        """What stands between the levels of names, quoted."""
        return render.string(self.store.namespace.separator.encode("ascii"))

    # Selecting.

    def select(self, selected: Selected) -> None:
        """The mailbox is this session's; its changes are heard of."""
        self.selected = selected
        selected.mailbox.subscribe(self._hint)

    async def deselect(self) -> None:
        """No mailbox is selected; the store has it back."""
        selected, self.selected = self.selected, None
        if selected is not None:
            selected.mailbox.unsubscribe(self._hint)
            await self.give_back(selected.mailbox)

    def _hint(self) -> None:
        """Called in any thread, after any change: many hints become one call in the reactor."""
        if not self._is_hinted and self.changed is not None:
            self._is_hinted = True
            self.service.reactor.callFromThread(self._hinted)

    def _hinted(self) -> None:
        self._is_hinted = False
        if self.changed is not None:
            self.changed()

    def listen(self) -> None:
        """Changes of the selected mailbox are told between commands, where NOTIFY wants that."""
        hears = self.watch is not None and self.watch.hears_selected
        self.changed = self.wants_turn if hears else None

    # Telling.

    def tell_keywords(self) -> None:
        """The client knows which flags there are, and which it can change. RFC 3501 §7.2.6."""
        selected = self.mailbox_in_use
        keywords, rights = tuple(selected.mailbox.keywords), _flag_rights(selected.mailbox.rights)
        if (keywords, rights) == selected.keywords_told:
            return
        selected.keywords_told = keywords, rights
        flags = applicable_flags(keywords)
        permanent = permanent_flags(keywords, NONE if selected.is_read_only else rights)
        self.output.line(b"* FLAGS " + flags)
        self.output.line(b"* OK [PERMANENTFLAGS %b] Flags permitted." % permanent)

    def enable_condstore(self) -> None:
        """CONDSTORE is in force; where it was not, the client learns the modseq. RFC 7162 §3.1.2."""
        if "CONDSTORE" not in self.enabled:
            self.enabled |= {"CONDSTORE"}
            if self.selected is not None:
                self._tell_modseq()

    def _tell_modseq(self) -> None:
        self.output.line(b"* OK [HIGHESTMODSEQ %d] Highest" % self.mailbox_in_use.told_modseq)

    def flags_line(self, number: int, message: Message) -> bytes:
        """An unsolicited FETCH of a message's flags; the client knows them all."""
        self.tell_keywords()  # another session may have made one since the command began
        selected = self.mailbox_in_use
        items = b"FLAGS " + render.flag_list(selected.flags_of(message))
        if self.is_uid_only:
            return self._uid_flags_line(message, items)
        if self.watch is not None and "CONDSTORE" not in self.enabled:
            items = b"UID %d %b" % (message.uid, items)  # RFC 5465 §5.1
        if "CONDSTORE" in self.enabled:  # RFC 7162 §3.2.4: both, in all of them
            items = b"UID %d MODSEQ (%d) %b" % (message.uid, message.modseq, items)
        return b"* %d FETCH (%b)\r\n" % (number, items)

    def _uid_flags_line(self, message: Message, items: bytes) -> bytes:
        """RFC 9586 §3.3."""
        if "CONDSTORE" in self.enabled:
            items = b"MODSEQ (%d) %b" % (message.modseq, items)
        return b"* %d UIDFETCH (%b)\r\n" % (message.uid, items)

    async def sync(self, may_expunge: bool = True) -> None:
        """The client was told what happened to the selected mailbox, as far as it may be now."""
        if self.selected is not None:
            self.tell_keywords()
            options = SyncOptions(may_expunge, "QRESYNC" in self.enabled or self.is_uid_only)
            first_new, held_back = self.selected.next_told, self.selected.holds_back
            changed = await self.selected.sync(self.service.threads, self.output, self.flags_line, options)
            if (held_back or self.selected.holds_back) and "CONDSTORE" in self.enabled:
                self._tell_modseq()  # RFC 7162 §3.2: it counts for more than the MODSEQs of FETCH
            for context in self.selected.contexts if changed else ():
                await context.update(changed)
            if self.watch is not None:
                own = self.selected.own
                await self.watch.tell_new([uid for uid in changed if uid >= first_new and uid not in own])

    async def tell_between(self) -> None:
        """As `sync`, when no command is at work: NOTIFY says what may be told. RFC 5465 §6.1."""
        if self.watch is not None and self.watch.hears_selected:
            await self.sync(may_expunge=not self.watch.is_delayed)

    def made(self, name: str, uids: Iterable[int]) -> None:
        """This session itself put the messages into the mailbox of that name."""
        if self.watch is not None and self.selected is not None and self.selected.mailbox.name == name:
            self.selected.own |= set(uids)

    @property
    def is_told_all(self) -> bool:
        """Whether `sync` would say nothing, and there are no rights to be looked at before that."""
        selected = self.selected
        return selected is None or not (selected.mailbox.is_guarded or selected.has_news)

    async def check_rights(self) -> None:
        """A command begins: what others changed about the user's rights is known."""
        if self.selected is not None and self.selected.mailbox.is_guarded:
            await self.run(self.selected.mailbox.check_rights)

    async def wake(self) -> None:
        """The selected mailbox's messages are in memory."""
        if self.selected is not None and self.selected.mailbox.sleeping is not None:
            await self.run(self.selected.mailbox.wake)

    async def refresh(self) -> None:
        """What other programs did is known."""
        if self.selected is not None and not self.selected.mailbox.is_current():
            await self.run(self.selected.mailbox.refresh)

    async def open(self, name: str) -> Mailbox:
        """The mailbox, to be given back with `give_back`. Raises StoreError."""
        mailbox = self.store.open_at_once(name)
        return mailbox if mailbox is not None else await self.run(self.store.open, name)

    async def give_back(self, mailbox: Mailbox) -> None:
        """The store has the mailbox back."""
        if not self.store.close_at_once(mailbox):
            await self.run(self.store.close, mailbox)

    async def close(self) -> None:
        """Nothing is held any more. Called once or more."""
        if not self._is_closed:
            self._is_closed = True
            self.changed = None
            watch, self.watch = self.watch, None
            if watch is not None:
                await watch.stop()
            await self.deselect()
