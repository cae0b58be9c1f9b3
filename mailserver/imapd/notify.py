r"""NOTIFY: the client hears of events in its mailboxes at any time. RFC 5465.

The selected mailbox is told of between commands (in IDLE, by IDLE). Other mailboxes are held open
while they are watched; their hints become STATUS responses. What sessions of this process do
with mailbox names is announced to the account's other watches and becomes LIST responses; what other
processes do is found by looking at the names every `poll_interval` seconds.

Beyond `MOST_WATCHED` mailboxes a NOTIFY is refused with NOTIFICATIONOVERFLOW. Commands tell of the
selected mailbox whatever NOTIFY says: RFC 3501 §5.2 wants the client to know its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from mailserver.imapd import fetch
from mailserver.imapd.listing import folders_of, is_in, list_line
from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.contract import SEEN, Folder, Mailbox, StoreError, Uid
from mailserver.wire.imap_namespace import SEPARATOR
from mailserver.wire.imap_notify import EVENTS, MESSAGE_EVENTS, EventGroup, Notify

MOST_WATCHED: Final = 200
_OF_THE_ACCOUNT: Final = ("SUBSCRIPTIONCHANGE", "SERVERMETADATACHANGE")
_watches: WeakSet[Watch] = WeakSet()


@dataclass(frozen=True, slots=True)
class NameEvent:
    """A mailbox was created, deleted, renamed (`old_name`); its subscription or annotations changed.

    `kind` is the event's name in capitals. `name` is "" for the account itself.
    """

    kind: str
    name: str
    old_name: str = ""
    entries: Sequence[str] = ()


def announce(session: Session, event: NameEvent) -> None:
    """The other sessions that know the mailbox and want to know are told, each by its own name."""
    account, _ = session.store.home("")
    owner, name = session.store.home(event.name)
    old_name = session.store.home(event.old_name)[1] if event.old_name else ""
    for watch in list(_watches):
        store = watch.session.store
        entries = event.entries
        if store.home("")[0] != account:
            entries = [entry for entry in entries if not entry.startswith("/private/")]
            if event.kind in _OF_THE_ACCOUNT or len(entries) < bool(event.entries):
                continue
        local = store.local_name(owner, name)
        if local is not None:
            old_local = store.local_name(owner, old_name) if old_name else ""
            own_words = replace(event, name=local, old_name=old_local or "", entries=entries)
            watch.heard(own_words, is_own=watch.session is session)


_NAME_EVENTS: Final = frozenset({"MAILBOXNAME", "SUBSCRIPTIONCHANGE"})
_OUTSIDE: Final = NameEvent("", "")


async def notify(session: Session, command: Notify) -> Reply:
    """What was asked for is told from now on, and nothing of what was before. RFC 5465 §3.1."""
    if command.unsupported:
        raise Refusal("Unsupported event.", b"BADEVENT (%b)" % b" ".join(EVENTS))
    watch = Watch(session, command.groups)
    await watch.start()
    if session.watch is not None:
        await session.watch.stop()
    session.watch = watch if command.groups else None
    session.listen()
    await session.refresh()
    await session.sync()
    if command.with_status:
        watch.tell_all()
    return ok("NOTIFY completed.")


@dataclass(slots=True)
class _Watched:
    """A mailbox that is held open, and what the client was told of it."""

    folder: Folder
    mailbox: Mailbox
    listener: Callable[[], None]
    told: tuple[int, int, int]
    is_hinted: bool = False

    def changes(self) -> set[str]:
        """Which events happened since the client was told."""
        count, uidnext, modseq = self.told
        now = self.told = _figures(self.mailbox)
        found = {"MESSAGENEW"} if now[1] != uidnext else set()
        if now[0] - (now[1] - uidnext) < count:
            found.add("MESSAGEEXPUNGE")
        if now[2] != modseq:
            found.add("FLAGCHANGE")
        return found


def _figures(mailbox: Mailbox) -> tuple[int, int, int]:
    return len(mailbox.messages), mailbox.uidnext, mailbox.highest_modseq


class Watch:
    """One session's NOTIFY SET. See `session.Watching`."""

    def __init__(self, session: Session, groups: Sequence[EventGroup]) -> None:
        self.session = session
        self._selected = next((group for group in groups if group.is_of_selected), None)
        self._groups = [group for group in groups if not group.is_of_selected]
        self._watched: dict[str, _Watched] = {}
        self._work: Deferred[None] | None = None
        self._is_at_work = False
        self._waiting: list[NameEvent] = []
        self._seen: dict[str, Folder] = {}  # what the client may know of
        self._poll = LoopingCall(self._look)
        self._poll.clock = session.service.reactor
        self._is_stopped = False

    @property
    def hears_selected(self) -> bool:
        """Whether the selected mailbox is told of between commands."""
        return not self._is_stopped and self._selected is not None and bool(self._selected.events)

    @property
    def is_delayed(self) -> bool:
        """Whether EXPUNGE waits for a command. RFC 5465 §6.1.2."""
        return self._selected is None or self._selected.filter.kind == "SELECTED-DELAYED"

    async def tell_new(self, uids: Sequence[Uid]) -> None:
        """What the client wants to know of new messages of the selected mailbox is told. §5.2."""
        if self._selected is not None and self._selected.items and uids and not self._is_stopped:
            await fetch.tell(self.session, uids, self._selected.items)

    # Its life.

    async def start(self) -> None:
        """The mailboxes are open and watched; a Refusal, with nothing held, where they are too many."""
        listed = await self.session.run(folders_of, self.session.store)
        self._seen = {folder.name: folder for folder in listed}
        folders = self._wanted(listed)
        if len(folders) > MOST_WATCHED:
            raise Refusal("Too many mailboxes to watch.", b"NOTIFICATIONOVERFLOW")
        await self._watch(folders)
        if self._groups:
            _watches.add(self)
        if any(group.events & _NAME_EVENTS for group in self._groups):
            self._poll.start(self.session.settings.poll_interval, now=False)

    async def stop(self) -> None:
        """Nothing is told any more, and nothing held."""
        self._is_stopped = True
        _watches.discard(self)
        if self._poll.running:
            self._poll.stop()
        if self._work is not None:
            await self._work
        for name in list(self._watched):
            await self._forget(name)

    async def _watch(self, folders: Sequence[Folder]) -> None:
        """These mailboxes are watched, and no others."""
        wanted = {folder.name: folder for folder in folders}
        for name in self._watched.keys() - wanted.keys():
            await self._forget(name)
        for name, folder in wanted.items():
            if name in self._watched:
                self._watched[name].folder = folder
                continue
            try:
                mailbox = await self.session.open(name)
            except StoreError:
                continue  # RFC 5465 §3.1: what cannot be had is ignored
            watched = _Watched(folder, mailbox, partial(self._hint, name), (0, 0, 0))
            self._watched[name] = watched
            mailbox.subscribe(watched.listener)
            with suppress(StoreError):
                if mailbox.sleeping is not None:
                    await self.session.run(mailbox.wake)
                watched.told = _figures(mailbox)

    async def _forget(self, name: str) -> None:
        watched = self._watched.pop(name)
        watched.mailbox.unsubscribe(watched.listener)
        await self.session.give_back(watched.mailbox)

    # Which mailboxes.

    def _wanted(self, folders: Sequence[Folder]) -> list[Folder]:
        """Those whose messages are asked for."""
        return [folder for folder in folders if folder.selectable and self._events(folder) & MESSAGE_EVENTS]

    def _events(self, folder: Folder) -> frozenset[str]:
        wanted = [group.events for group in self._groups if is_in(self.session, group.filter, folder)]
        return frozenset[str]().union(*wanted)

    # Messages in other mailboxes.

    def _hint(self, name: str) -> None:
        """Called in any thread: many hints become one call in the reactor."""
        watched = self._watched.get(name)
        if watched is not None and not watched.is_hinted:
            watched.is_hinted = True
            self.session.service.reactor.callFromThread(self._hinted, name)

    def _hinted(self, name: str) -> None:
        watched = self._watched.get(name)
        if watched is None or self._is_stopped:
            return
        watched.is_hinted = False
        with suppress(StoreError):  # one that may be read no longer is told of no longer
            happened = watched.changes()
            is_wanted = bool(self._events(watched.folder) & happened) and not self._is_selected(watched)
            if is_wanted and not self._overflows():
                self._say_status(watched, is_first=False)
                self.session.output.flush()

    def _is_selected(self, watched: _Watched) -> bool:
        selected = self.session.selected
        return selected is not None and selected.mailbox.mailbox_id == watched.mailbox.mailbox_id

    def _overflows(self) -> bool:
        """Whether the client does not read: then nothing more is told, and it is told so. §5.8."""
        if self.session.output.is_paused and not self._is_stopped:
            self._is_stopped = True
            self.session.output.line(b"* OK [NOTIFICATIONOVERFLOW] Notifications have ended.")
        return self._is_stopped

    def tell_all(self) -> None:
        """A STATUS response for each watched mailbox that is not selected. §3.1."""
        for watched in self._watched.values():
            if not self._is_selected(watched):
                with suppress(StoreError):
                    self._say_status(watched, is_first=True)

    def _say_status(self, watched: _Watched, is_first: bool) -> None:
        mailbox, session = watched.mailbox, self.session
        events = self._events(watched.folder)
        words = [b"MESSAGES %d UIDNEXT %d" % (len(mailbox.messages), mailbox.uidnext)]
        if is_first or "FLAGCHANGE" in events:
            words.append(b"UIDVALIDITY %d" % mailbox.uidvalidity)
        if "FLAGCHANGE" in events:
            seen = sum(SEEN in message.flags for message in list(mailbox.messages.values()))
            words.append(b"UNSEEN %d" % (len(mailbox.messages) - seen))
        if "CONDSTORE" in session.enabled or (is_first and "FLAGCHANGE" in events):
            words.append(b"HIGHESTMODSEQ %d" % mailbox.highest_modseq)
        session.output.line(b"* STATUS %b (%b)" % (session.name(mailbox.name), b" ".join(words)))

    # Names.

    def heard(self, event: NameEvent, is_own: bool) -> None:
        """A mailbox's name or subscription changed; what this session did itself it knows."""
        self._take(event if not is_own else NameEvent("", event.name))

    def _look(self) -> None:
        """What another process may have done is looked for, unless the client has not read the last yet."""
        if not self._is_at_work and not self.session.output.is_paused:
            self._take(_OUTSIDE)

    def _take(self, event: NameEvent) -> None:
        if not self._is_stopped:
            self._waiting.append(event)
            if not self._is_at_work:
                self._is_at_work = True
                self._work = Deferred.fromCoroutine(self._take_names())

    async def _take_names(self) -> None:
        try:
            while self._waiting and not self._is_stopped:
                event = self._waiting.pop(0)
                folders = await self.session.run(folders_of, self.session.store)
                await self._watch(self._wanted(folders)[:MOST_WATCHED])
                names = {folder.name: folder for folder in folders}
                if not self._overflows():
                    for each in self._differences(names) if event is _OUTSIDE else [event]:
                        self._tell_name(each, names)
                self._seen = names
                self.session.output.flush()
        except StoreError:
            self._waiting.clear()  # what cannot be looked at is not told
        finally:
            self._is_at_work = False

    def _differences(self, folders: dict[str, Folder]) -> list[NameEvent]:
        """What happened to names since they were last looked at."""
        seen = self._seen
        moved = folders.keys() ^ seen.keys()
        parents = {name.rpartition(SEPARATOR)[0] for name in moved}  # told with their children
        came_or_went = sorted(moved - parents)
        changed = sorted(
            name for name in folders.keys() & seen.keys() if folders[name].subscribed != seen[name].subscribed
        )
        return [NameEvent("MAILBOXNAME", name) for name in came_or_went] + [
            NameEvent("SUBSCRIPTIONCHANGE", name) for name in changed
        ]

    def _tell_name(self, event: NameEvent, folders: dict[str, Folder]) -> None:
        """§5.4: the mailbox, and the parent of one that came or went. §5.6, §5.7: entries without values."""
        if event.entries:
            if event.name not in folders and not self.session.store.is_own(event.name):
                return
            folder = folders.get(event.name) or Folder(event.name, selectable=False)
            if event.kind in self._events(folder):
                entries = " ".join(event.entries).encode("ascii")
                self.session.output.line(b"* METADATA %b %b" % (self.session.name(event.name), entries))
            return
        store = self.session.store
        names = [event.name]
        parent = store.namespace.parent(event.name, store.is_own(event.name))
        if event.kind == "MAILBOXNAME" and parent and not event.old_name:
            names.append(parent)
        for name in names:
            is_own = store.is_own(name)
            if name not in folders and name not in self._seen and not is_own:
                return  # another user's, which this one may not look up
            folder = folders.get(name) or Folder(name, selectable=False, is_personal=is_own)
            if event.kind in self._events(folder):
                line = list_line(self.session, folder, with_subscribed=True)
                if event.old_name and (event.old_name in self._seen or self.session.store.is_own(name)):
                    line += b' ("OLDNAME" (%b))' % self.session.name(event.old_name)
                self.session.output.line(line)
