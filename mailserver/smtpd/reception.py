"""One message's content, from the decoder to the queue.

Content is cleaned and kept in memory as it comes, up to a limit, then goes to the queue file
in visits to a thread; the session reads nothing meanwhile, so a slow disk slows the client and
no message is ever whole in memory. The usual message costs one such visit: create, write, fsync.

A refusal of the content, or a disk that fails, is kept until the content's end, where the client is told;
what comes till then is swallowed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from mailserver.delivery.content_checks import Findings
from mailserver.envelope import Envelope
from mailserver.milter.content import MilterContent
from mailserver.queue.copies import affected
from mailserver.queue.direct import Delivered
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.queue.incoming import IncomingMessage
from mailserver.queue.milters import apply_changes, milter_content
from mailserver.smtpd.verdict import Effects
from mailserver.threads import Threads


class ContentFilter(Protocol):
    """What stands between wire and queue file: `mailserver.queue.cleanup.Cleanup`."""

    message_id: str
    findings: Findings  # what header_checks and their like want done with the message

    def feed(self, data: bytes) -> bytes:
        """What is to be stored for certain by now."""

    def finish(self) -> bytes:
        """The rest. Raises ContentRefused."""


# Our Received: field, fields to add, and whether the client is one of our own.
MakeFilter = Callable[[bytes, Mapping[str, str], bool], ContentFilter]

# Makes a message durable. Fails with OSError, nothing being left of it.
Take = Callable[[IncomingMessage], Awaitable[QueueFile | Delivered]]


class Reception:
    """A message being received. `add` never blocks; the others are awaited, one at a time."""

    def __init__(
        self,
        queue: QueueDirectory,
        envelope: Envelope,
        arrival: float,
        threads: Threads,
        adds_copies: bool = True,
        take: Take | None = None,
    ) -> None:
        """`take` takes the whole message over, where it is not simply committed to the queue."""
        self.arrival = arrival
        self._message = queue.create(envelope, arrival, adds_copies=adds_copies)
        self._threads = threads
        self._take = take
        self._filter: ContentFilter | None = None
        self._failure: OSError | None = None
        self._is_flushing = False
        self._is_discarded = False
        self._is_finished = False
        self._own = b""
        self.octets = 0

    @property
    def queue_id(self) -> str:
        """The id under which the message is, or would have been, queued."""
        return self._message.queue_id

    @property
    def message_id(self) -> str:
        """The Message-Id's value, once all content was taken; "" where there is none."""
        return self._filter.message_id if self._filter is not None else ""

    @property
    def findings(self) -> Findings:
        """What header_checks and their like want done, and logged, with the content so far."""
        return self._filter.findings if self._filter is not None else Findings()

    def begin(self, content_filter: ContentFilter, own: bytes = b"") -> None:
        """Content may be added; `own` is our Received: field, which the filter puts before it."""
        self._filter = content_filter
        self._own = own

    def add(self, content: bytes) -> None:
        """The piece (LF line ends) is taken."""
        assert self._filter is not None
        self.octets += len(content)
        if self._failure is None:
            stored = self._filter.feed(content)
            if stored:
                self._message.write(stored)

    @property
    def wants_flush(self) -> bool:
        """Whether `flush` is due before more is added."""
        return self._failure is None and self._message.wants_flush

    async def flush(self) -> None:
        """What waited is on its way to the disk, out of memory."""
        self._is_flushing = True
        try:
            await self._threads.run(self._message.flush)
        except OSError as failure:
            self._failure = failure
        self._is_flushing = False
        if self._is_discarded:
            await self._threads.run(self._message.discard)

    async def commit(self, effects: Effects) -> QueueFile | Delivered | None:
        """The message is durable, in the queue or in its mailbox; None where an access rule had it discarded.

        Raises ContentRefused and OSError: nothing is left of the message.
        """
        if self._take is None:
            return await self._threads.run(self._commit, effects)
        if self._message.is_in_memory:
            is_kept = self._is_kept(effects)
        else:
            is_kept = await self._threads.run(self._is_kept, effects)
        return await self._take(self._message) if is_kept else None

    async def for_milters(self, size_limit: int) -> MilterContent:
        """All of the content, as milters see it. Raises ContentRefused and OSError, as `commit` does."""
        return await self._threads.run(self._for_milters, size_limit)

    def _for_milters(self, size_limit: int) -> MilterContent:
        self._finish()
        return milter_content(self._message, self._own, size_limit)

    async def change(self, content: MilterContent) -> None:
        """The message is as milters made it. Raises OSError: nothing is left of it."""
        await self._threads.run(apply_changes, self._message, content)

    def _finish(self) -> None:
        assert self._filter is not None
        if self._is_finished:
            return
        self._is_finished = True
        if self._failure is not None:
            raise self._failure
        try:
            self._message.write(self._filter.finish())
        except BaseException:
            self._message.discard()
            raise

    def _commit(self, effects: Effects) -> QueueFile | None:
        return self._message.commit() if self._is_kept(effects) else None

    def _is_kept(self, effects: Effects) -> bool:
        """Whether the message, which is whole now, is to go anywhere. Blocks where it is on the disk."""
        assert self._filter is not None
        self._finish()
        findings = self._filter.findings
        if effects.discard or findings.discard:
            self._message.discard()
            return False
        redirect, bcc = findings.redirect or effects.redirect, (*effects.bcc, *findings.bcc)
        content_filter = findings.content_filter or effects.content_filter
        self._message.envelope = affected(self._message.envelope, redirect, bcc, content_filter)
        self._message.is_held = self._message.is_held or bool(effects.hold) or findings.hold
        return True

    def discard(self) -> None:
        """Nothing of the message is left, soon: after the flush that is under way, if there is one."""
        self._is_discarded = True
        if not self._is_flushing:
            self._threads.run(self._message.discard)
