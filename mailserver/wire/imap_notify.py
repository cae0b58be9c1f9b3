"""NOTIFY: which events of which mailboxes a client wants to hear of. RFC 5465 §8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_fetch import Item, read_items
from mailserver.wire.imap_filter import NAMED, UNNAMED, MailboxFilter, read_filter

MOST_GROUPS: Final = 50
MESSAGE_EVENTS: Final = frozenset({"MESSAGENEW", "MESSAGEEXPUNGE", "FLAGCHANGE"})
EVENTS: Final = (
    b"MessageNew", b"MessageExpunge", b"FlagChange", b"MailboxName", b"SubscriptionChange",
    b"MailboxMetadataChange", b"ServerMetadataChange",
)  # fmt: skip
_KNOWN: Final = frozenset(name.decode("ascii").upper() for name in EVENTS)
_SELECTED: Final = frozenset({"SELECTED", "SELECTED-DELAYED"})


@dataclass(frozen=True, slots=True)
class EventGroup:
    """A filter and its events; none: NONE. `items` are to be fetched of new messages."""

    filter: MailboxFilter
    events: frozenset[str] = frozenset()
    items: tuple[Item, ...] = ()

    @property
    def is_of_selected(self) -> bool:
        """Whether the group is about the selected mailbox, whichever that is."""
        return self.filter.kind in _SELECTED


@dataclass(frozen=True, slots=True)
class Notify:
    """NOTIFY SET, or NONE without groups. `unsupported`: an event that we do not know was named."""

    groups: tuple[EventGroup, ...] = ()
    with_status: bool = False
    unsupported: bool = False


def read_notify(reader: ArgumentReader) -> Notify:
    """The arguments of NOTIFY."""
    reader.space()
    kind = reader.word()
    if kind == "NONE":
        return Notify()
    if kind != "SET":
        raise ImapSyntaxError("SET or NONE expected")
    reader.space()
    with_status = reader.peek() != b"("
    if with_status:
        if reader.word() != "STATUS":
            raise ImapSyntaxError("STATUS or event group expected")
        reader.space()
    groups = [_group(reader)]
    while not reader.at_end:
        reader.space()
        groups.append(_group(reader))
    if len(groups) > MOST_GROUPS or sum(group.is_of_selected for group in groups) > 1:
        raise ImapSyntaxError("Too many event groups")
    return Notify(tuple(groups), with_status, any(group.events - _KNOWN for group in groups))


def _group(reader: ArgumentReader) -> EventGroup:
    reader.open()
    chosen = read_filter(reader, _SELECTED | UNNAMED, NAMED)
    reader.space()
    events, items = _events(reader)
    reader.close()
    group = EventGroup(chosen, events, items)
    _check(group)
    return group


def _events(reader: ArgumentReader) -> tuple[frozenset[str], tuple[Item, ...]]:
    if reader.peek() != b"(":
        if reader.word() != "NONE":
            raise ImapSyntaxError("Events expected")
        return frozenset(), ()
    items: list[Item] = []

    def event() -> str:
        name = reader.word()
        if name == "MESSAGENEW" and reader.skip(b" ("):
            reader.position -= 1
            items.extend(read_items(reader))
        return name

    return frozenset(reader.list_of(event)), tuple(items)


def _check(group: EventGroup) -> None:
    """RFC 5465 §5: which events go together."""
    events = group.events
    if len({"MESSAGENEW", "MESSAGEEXPUNGE"} & events) == 1 or (
        events & {"FLAGCHANGE", "ANNOTATIONCHANGE"} and "MESSAGENEW" not in events
    ):
        raise ImapSyntaxError("MessageNew and MessageExpunge must be together")
    if group.is_of_selected and events & (_KNOWN - MESSAGE_EVENTS):
        raise ImapSyntaxError("The selected mailbox has message events only")
    if group.items and not group.is_of_selected:
        raise ImapSyntaxError("Items are fetched of the selected mailbox only")
