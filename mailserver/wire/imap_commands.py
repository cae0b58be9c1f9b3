"""IMAP commands: from a command's text to a value.

`parse_command` knows the grammar of each command and nothing of its meaning: which state
allows it, and what it does, is `imapd`'s business.

RFC 3501 §6 and §9; the extensions are cited at their commands.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mailserver.wire.imap_acl import read_about_identifier, read_set_acl
from mailserver.wire.imap_append import read_append, read_replace
from mailserver.wire.imap_arguments import LARGEST_MODSEQ, ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_fetch import read_fetch
from mailserver.wire.imap_flags import read_bare_flags, read_flag_list
from mailserver.wire.imap_framing import CommandText
from mailserver.wire.imap_list import read_list, read_lsub, read_status_items
from mailserver.wire.imap_mailbox import read_mailbox
from mailserver.wire.imap_metadata import read_get_metadata, read_set_metadata
from mailserver.wire.imap_multisearch import read_multisearch
from mailserver.wire.imap_namespace import NO_PREFIX, PersonalNamespace
from mailserver.wire.imap_notify import read_notify
from mailserver.wire.imap_search import read_search, read_sort, read_thread
from mailserver.wire.imap_select import read_select
from mailserver.wire.imap_sequence import SequenceSet, read_sequence_set
from mailserver.wire.imap_urlauth import read_gen_url_auth, read_reset_key, read_url_fetch

LONGEST_TAG: Final = 200
TAG: Final = rb'[^\x00-\x20\x7f-\xff(){%%*"\\+]{1,%d}' % LONGEST_TAG  # a regular expression
_TAG: Final = re.compile(TAG)
_SHORT: Final = 300  # octets of a command that is worth being kept
_MOST_KNOWN: Final = 500
_REPEATED: Final = frozenset(
    {
        "NOOP",
        "IDLE",
        "CHECK",
        "SELECT",
        "EXAMINE",
        "UNSELECT",
        "CLOSE",
        "STATUS",
        "FETCH",
        "UID FETCH",
        "EXPUNGE",
    }
)  # values that nobody can change, and without secrets


@dataclass(frozen=True, slots=True)
class Nothing:
    """A command without arguments."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """AUTHENTICATE; `initial` is the decoded initial response, None where none came. RFC 4959."""

    mechanism: str
    initial: bytes | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """LOGIN."""

    name: bytes
    password: bytes


@dataclass(frozen=True, slots=True)
class SetQuota:
    """SETQUOTA: resources and their limits, STORAGE in units of 1024 octets."""

    root: str
    limits: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A command about one name: DELETE, SUBSCRIBE, GETQUOTAROOT, GETACL and so on, and GETQUOTA's root."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Create:
    """CREATE, with the use it is meant for (RFC 6154 §3), b"" for none."""

    mailbox: str
    special_use: bytes = b""


@dataclass(frozen=True, slots=True)
class Rename:
    """RENAME."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Status:
    """STATUS."""

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expunge:
    """EXPUNGE, or UID EXPUNGE of some. RFC 4315 §2.1."""

    uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """STORE and UID STORE. `sign` is "+", "-" or "". RFC 7162 §3.1.3 for `unchanged_since`."""

    messages: SequenceSet
    sign: str
    flags: frozenset[bytes]
    is_silent: bool = False
    by_uid: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY, MOVE (RFC 6851), and their UID forms."""

    messages: SequenceSet
    mailbox: str
    by_uid: bool = False


@dataclass(frozen=True, slots=True)
class Enable:
    """ENABLE. RFC 5161."""

    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelUpdate:
    """CANCELUPDATE. RFC 5267 §4.3.5."""

    tags: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class UidBatches:
    """UIDBATCHES: of `size` messages each; batches `first` to `last`, from 1, None for all. RFC 10022."""

    size: int
    first: int = 1
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Compress:
    """COMPRESS. RFC 4978."""

    mechanism: str


@dataclass(frozen=True, slots=True)
class Identify:
    """ID: what the client says of itself. RFC 2971."""

    fields: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command. `name` is upper case, `UID FETCH` is one name."""

    tag: bytes
    name: str
    arguments: Any


class BadCommand(ImapSyntaxError):
    """The command is not understood; `tag` is the client's, or `*` where it gave none."""

    def __init__(self, tag: bytes, text: str, is_unknown: bool = False) -> None:
        super().__init__(text)
        self.tag = tag
        self.is_unknown = is_unknown


_known: dict[tuple[bytes, bool, PersonalNamespace], tuple[str, Any]] = {}


def parse_command(
    command: CommandText, takes_utf8: bool = False, namespace: PersonalNamespace = NO_PREFIX
) -> Command:
    """The command. Raises BadCommand for what is not IMAP.

    InvalidMailboxName and BadCharset, which have answers of their own, are its `__cause__`.
    Clients say the same things all the time: what was read of a short one is kept for the next.
    """
    tag, _, rest = command.text.partition(b" ")
    key = (rest, takes_utf8, namespace)
    known = _known.get(key)
    if known is not None and not command.literals and _TAG.fullmatch(tag):
        return Command(tag, *known)
    parsed = _parse(command, takes_utf8, namespace)
    if parsed.name in _REPEATED and len(rest) <= _SHORT and not command.literals:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = parsed.name, parsed.arguments
    return parsed


def _parse(command: CommandText, takes_utf8: bool, namespace: PersonalNamespace) -> Command:
    reader = ArgumentReader(command.text, command.literals, takes_utf8, namespace)
    tag = _tag(reader)
    try:
        reader.space()
        name = _name(reader)
        parser = _PARSERS.get(name)
        if parser is None:
            raise BadCommand(tag, "Unknown command", is_unknown=True)
        arguments = parser(reader)
        reader.end()
    except BadCommand:
        raise
    except ValueError as fault:
        raise BadCommand(tag, str(fault)) from fault
    return Command(tag, name, arguments)


def _tag(reader: ArgumentReader) -> bytes:
    try:
        tag = reader.tag()
        if len(tag) > LONGEST_TAG or reader.peek() not in (b" ", b""):
            raise ImapSyntaxError("Invalid tag")
        return tag
    except ImapSyntaxError:
        raise BadCommand(b"*", "Invalid tag")


def _name(reader: ArgumentReader) -> str:
    name = reader.word()
    if name != "UID":
        return name
    reader.space()
    return "UID " + reader.word()


def _nothing(reader: ArgumentReader) -> Nothing:
    while reader.skip(b" "):
        pass
    return Nothing()


def _authenticate(reader: ArgumentReader) -> Authenticate:
    reader.space()
    mechanism = reader.word()
    if reader.at_end:
        return Authenticate(mechanism)
    reader.space()
    encoded = reader.text[reader.position :]
    reader.position = len(reader.text)
    return Authenticate(mechanism, b"" if encoded == b"=" else decode_base64(encoded))


def decode_base64(text: bytes) -> bytes:
    """The octets of a SASL response. Raises ImapSyntaxError."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise ImapSyntaxError("Invalid base64 data")


def _login(reader: ArgumentReader) -> Login:
    reader.space()
    name = reader.astring()
    reader.space()
    return Login(name, reader.astring())


def _named(reader: ArgumentReader) -> Named:
    reader.space()
    return Named(read_mailbox(reader))


def _quota_root(reader: ArgumentReader) -> Named:
    reader.space()
    return Named(reader.astring().decode("utf-8", "replace"))


def _set_quota(reader: ArgumentReader) -> SetQuota:
    reader.space()
    root = reader.astring().decode("utf-8", "replace")
    reader.space()

    def limit() -> tuple[str, int]:
        name = reader.word()
        reader.space()
        return name, reader.number(LARGEST_MODSEQ)

    return SetQuota(root, tuple(reader.list_of(limit, may_be_empty=True)))


def _create(reader: ArgumentReader) -> Create:
    reader.space()
    mailbox = read_mailbox(reader)
    if reader.at_end:
        return Create(mailbox)
    reader.space()
    reader.open()
    if reader.word() != "USE":
        raise ImapSyntaxError("Unknown CREATE parameter")
    reader.space()
    uses = reader.list_of(reader.flag)
    reader.close()
    return Create(mailbox, b" ".join(uses))


def _rename(reader: ArgumentReader) -> Rename:
    reader.space()
    old = read_mailbox(reader)
    reader.space()
    return Rename(old, read_mailbox(reader))


def _status(reader: ArgumentReader) -> Status:
    reader.space()
    mailbox = read_mailbox(reader)
    reader.space()
    return Status(mailbox, read_status_items(reader))


def _store(reader: ArgumentReader, by_uid: bool = False) -> Store:
    reader.space()
    messages = read_sequence_set(reader)
    reader.space()
    unchanged_since = None
    if reader.peek() == b"(":
        reader.open()
        if reader.word() != "UNCHANGEDSINCE":
            raise ImapSyntaxError("Unknown STORE modifier")
        reader.space()
        unchanged_since = reader.number(LARGEST_MODSEQ)
        reader.close()
        reader.space()
    sign = "+" if reader.skip(b"+") else "-" if reader.skip(b"-") else ""
    item = reader.word()
    if item not in ("FLAGS", "FLAGS.SILENT"):
        raise ImapSyntaxError("Invalid STORE item")
    reader.space()
    flags = read_flag_list(reader) if reader.peek() == b"(" else read_bare_flags(reader)
    return Store(messages, sign, flags, item.endswith(".SILENT"), by_uid, unchanged_since)


def _copy(reader: ArgumentReader, by_uid: bool = False) -> Copy:
    reader.space()
    messages = read_sequence_set(reader)
    reader.space()
    return Copy(messages, read_mailbox(reader), by_uid)


def _uid_expunge(reader: ArgumentReader) -> Expunge:
    reader.space()
    return Expunge(read_sequence_set(reader))


def _expunge(reader: ArgumentReader) -> Expunge:
    _nothing(reader)
    return Expunge()


def _enable(reader: ArgumentReader) -> Enable:
    extensions: list[str] = []
    while not reader.at_end or not extensions:
        reader.space()
        extensions.append(reader.word())
    return Enable(tuple(extensions))


def _compress(reader: ArgumentReader) -> Compress:
    reader.space()
    return Compress(reader.word())


def _uid_batches(reader: ArgumentReader) -> UidBatches:
    reader.space()
    size = reader.number()
    if not size:
        raise ImapSyntaxError("Batch size must not be zero")
    if reader.at_end:
        return UidBatches(size)
    reader.space()
    first = reader.number()
    reader.expect(b":")
    last = reader.number()
    if not first or not last:
        raise ImapSyntaxError("Batches count from 1")
    return UidBatches(size, first, last)


def _cancel_update(reader: ArgumentReader) -> CancelUpdate:
    tags: list[bytes] = []
    while not reader.at_end or not tags:
        reader.space()
        tags.append(reader.string())
    return CancelUpdate(tuple(tags))


def _id(reader: ArgumentReader) -> Identify:
    reader.space()
    if reader.peek() != b"(":
        if reader.word() != "NIL":
            raise ImapSyntaxError("Parameter list expected")
        return Identify()
    words = reader.list_of(reader.nstring, may_be_empty=True)
    if len(words) > 60 or len(words) % 2:
        raise ImapSyntaxError("Invalid parameter list")
    pairs = zip(words[::2], words[1::2], strict=True)
    return Identify(tuple((name or b"", value or b"") for name, value in pairs))


_BARE: Final = (
    "CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "CHECK", "CLOSE", "UNSELECT", "NAMESPACE", "IDLE",
    "UNAUTHENTICATE",
)  # fmt: skip
_PARSERS: Final[dict[str, Callable[[ArgumentReader], Any]]] = {
    **dict.fromkeys(_BARE, _nothing),
    "AUTHENTICATE": _authenticate,
    "LOGIN": _login,
    "SELECT": read_select,
    "EXAMINE": lambda reader: read_select(reader, is_read_only=True),
    "CREATE": _create,
    "DELETE": _named,
    "RENAME": _rename,
    "SUBSCRIBE": _named,
    "UNSUBSCRIBE": _named,
    "LIST": read_list,
    "LSUB": read_lsub,
    "STATUS": _status,
    "APPEND": read_append,
    "EXPUNGE": _expunge,
    "SEARCH": read_search,
    "ESEARCH": read_multisearch,
    "FETCH": read_fetch,
    "STORE": _store,
    "COPY": _copy,
    "MOVE": _copy,
    "REPLACE": read_replace,
    "SORT": read_sort,
    "THREAD": read_thread,
    "ENABLE": _enable,
    "ID": _id,
    "CANCELUPDATE": _cancel_update,
    "COMPRESS": _compress,
    "NOTIFY": read_notify,
    "GETMETADATA": read_get_metadata,
    "SETMETADATA": read_set_metadata,
    "GETQUOTA": _quota_root,
    "SETQUOTA": _set_quota,
    "GETQUOTAROOT": _named,
    "GETACL": _named,
    "MYRIGHTS": _named,
    "SETACL": read_set_acl,
    "DELETEACL": read_about_identifier,
    "LISTRIGHTS": read_about_identifier,
    "RESETKEY": read_reset_key,
    "GENURLAUTH": read_gen_url_auth,
    "URLFETCH": read_url_fetch,
    "UIDBATCHES": _uid_batches,
    "UID EXPUNGE": _uid_expunge,
    "UID FETCH": lambda reader: read_fetch(reader, by_uid=True),
    "UID STORE": lambda reader: _store(reader, by_uid=True),
    "UID COPY": lambda reader: _copy(reader, by_uid=True),
    "UID MOVE": lambda reader: _copy(reader, by_uid=True),
    "UID REPLACE": lambda reader: read_replace(reader, by_uid=True),
    "UID SEARCH": lambda reader: read_search(reader, by_uid=True),
    "UID SORT": lambda reader: read_sort(reader, by_uid=True),
    "UID THREAD": lambda reader: read_thread(reader, by_uid=True),
}
