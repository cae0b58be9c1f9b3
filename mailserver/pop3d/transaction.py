"""The TRANSACTION state: what each command answers over a maildrop. RFC 1939 §5, §7.

Answers are whole responses, line ends included. Listings of a large maildrop are made in
one go; messages are read and stuffed in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from mailserver.pop3d.maildrop import Maildrop
from mailserver.pop3d.output import END
from mailserver.pop3d.uidl import Known, needs_digests, needs_names, uidl_maker
from mailserver.store.contract import Uid
from mailserver.threads import Threads

_NUMBER: Final = re.compile(rb"[0-9]{1,10}")


class BadCommand(Exception):
    """The client erred. The text is public; too many of them end the connection."""


class Transaction:
    """See the module. `is_updated` is set once QUIT has done its work."""

    def __init__(
        self, maildrop: Maildrop, threads: Threads, uidl_format: str, reuses_old_ids: bool = False
    ) -> None:
        self._maildrop = maildrop
        self._threads = threads
        self._uidl = uidl_maker(uidl_format)
        self._names: Mapping[Uid, str] | None = None if needs_names(uidl_format) else {}
        self._digests: Mapping[Uid, str] | None = None if needs_digests(uidl_format) else {}
        self._old_ids: Mapping[Uid, bytes] | None = None if reuses_old_ids else {}
        self.is_updated = False

    def at_hand(self, line: bytes) -> bytes | None:
        """The response where the command is RETR of a message that was read ahead, else None."""
        verb, _, argument = line.partition(b" ")
        if verb.upper() != b"RETR" or not _NUMBER.fullmatch(argument):
            return None
        number = int(argument)
        return None if number in self._maildrop.deleted else self._maildrop.at_hand(number)

    async def answer(self, name: bytes, argument: bytes) -> bytes:
        """The response to a command. Raises BadCommand, StoreError."""
        handler = _COMMANDS.get(name)
        if handler is None:
            raise BadCommand("Unknown command.")
        return await handler(self, argument.split())

    async def _stat(self, arguments: list[bytes]) -> bytes:
        return b"+OK %d %d\r\n" % self._maildrop.totals()

    async def _list(self, arguments: list[bytes]) -> bytes:
        maildrop = self._maildrop
        if arguments:
            number = self._number(arguments)
            return b"+OK %d %d\r\n" % (number, maildrop.size(number))
        lines = [b"%d %d\r\n" % (number, maildrop.size(number)) for number in maildrop.present()]
        return b"+OK %d messages:\r\n%b%b" % (len(lines), b"".join(lines), END)

    async def _list_ids(self, arguments: list[bytes]) -> bytes:
        if self._names is None:
            self._names = await self._threads.run(self._maildrop.file_names)
        if self._digests is None:
            self._digests = await self._threads.run(self._maildrop.header_digests)
        if self._old_ids is None:
            self._old_ids = await self._threads.run(self._maildrop.old_ids)
        if arguments:
            number = self._number(arguments)
            return b"+OK %d %b\r\n" % (number, self._id(number))
        lines = [b"%d %b\r\n" % (number, self._id(number)) for number in self._maildrop.present()]
        return b"+OK\r\n%b%b" % (b"".join(lines), END)

    def _id(self, number: int) -> bytes:
        uid = self._maildrop.uids[number - 1]
        if self._old_ids and uid in self._old_ids:
            return self._old_ids[uid]
        name, digest = (self._names or {}).get(uid, ""), (self._digests or {}).get(uid, "")
        return self._uidl(Known(uid, self._maildrop.uidvalidity, name, digest))

    async def _retrieve(self, arguments: list[bytes]) -> bytes:
        return await self._threads.run(self._maildrop.retrieve, self._number(arguments))

    async def _top(self, arguments: list[bytes]) -> bytes:
        if len(arguments) != 2 or not _NUMBER.fullmatch(arguments[1]):
            raise BadCommand("TOP needs a message number and a number of lines.")
        return await self._threads.run(self._maildrop.top, self._number(arguments[:1]), int(arguments[1]))

    async def _delete(self, arguments: list[bytes]) -> bytes:
        self._maildrop.deleted.add(self._number(arguments))
        return b"+OK Marked to be deleted.\r\n"

    async def _reset(self, arguments: list[bytes]) -> bytes:
        self._maildrop.deleted.clear()
        self._maildrop.forget_flags()
        return b"+OK\r\n"

    async def _nothing(self, arguments: list[bytes]) -> bytes:
        return b"+OK\r\n"

    def _number(self, arguments: list[bytes]) -> int:
        """The number of a message that is there and not marked as deleted."""
        if len(arguments) != 1 or not _NUMBER.fullmatch(arguments[0]):
            raise BadCommand("Invalid message number.")
        number = int(arguments[0])
        if not 1 <= number <= len(self._maildrop.uids):
            raise BadCommand(f"There's no message {number}.")
        if number in self._maildrop.deleted:
            raise BadCommand("Message is deleted.")
        return number


_Handler = Callable[[Transaction, list[bytes]], Awaitable[bytes]]
_COMMANDS: Final[Mapping[bytes, _Handler]] = {
    b"STAT": Transaction._stat,
    b"LIST": Transaction._list,
    b"UIDL": Transaction._list_ids,
    b"RETR": Transaction._retrieve,
    b"TOP": Transaction._top,
    b"DELE": Transaction._delete,
    b"RSET": Transaction._reset,
    b"NOOP": Transaction._nothing,
}
