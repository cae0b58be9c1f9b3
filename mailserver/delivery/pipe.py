"""Mail into commands of the administrator's: pipe(8)'s role.

A delivery agent runs the command as the row's `user=`, never as root and never as the owner of the queue; it
gets the message on its standard input, and its exit status decides for all recipients of the delivery,
in sysexits(3)'s words. `delivery.command` has what holds for every command: no shell, its own process
group, which is killed at the time limit.
"""

from __future__ import annotations

import grp
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailserver.delivery.job import Action, Agents, Job, Owner
from mailserver.delivery.lookups import owner_named
from mailserver.delivery.pipe_attributes import Pipe, PipeAttributes, UnsafeArgument, arguments_for
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Outcome
from mailserver.store.mbox_lines import from_line
from mailserver.threads import Threads

_HEADER_LIMIT: Final = 1 << 17  # octets of header in which Delivered-To: counts
_DELIVERED_TO: Final = re.compile(rb"^delivered-to:[ \t]*<?([^\n>]*)", re.IGNORECASE | re.MULTILINE)


class _Unusable(Exception):
    """Nobody can run the row's command for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeRules:
    """`refused_uids` own the queue, or everything; where `own_uid` is set, nobody else can be become."""

    split: Callable[[str], tuple[str, str]]
    environment: Mapping[str, str]
    refused_uids: frozenset[int] = frozenset({0})
    own_uid: int | None = None


class PipeTransport:
    """`Transport` for the pipe rows of master.cf, by name. `threads` are its own: commands may take long."""

    def __init__(self, pipes: Mapping[str, Pipe], agents: Agents, threads: Threads, rules: PipeRules) -> None:
        self._pipes = pipes
        self._agents = agents
        self._threads = threads
        self._rules = rules

    def __contains__(self, transport: str) -> bool:
        return transport in self._pipes

    def service(self, transport: str) -> str:
        """See `Transport.service`."""
        return "pipe"

    async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
        """See `Transport.deliver`."""
        outcome = await self._threads.run(self._deliver, self._pipes[mail.transport], mail)
        return [outcome] * len(mail.recipients)

    def _deliver(self, pipe: Pipe, mail: Outgoing) -> Outcome:
        """*Blocking.*"""
        attributes = pipe.attributes
        if 0 < attributes.size < mail.content_length:
            text = f"message size {mail.content_length} exceeds size limit {attributes.size}"
            return Outcome.failed(text, "5.2.3", mail.transport)
        try:
            if "D" in attributes.flags and _is_loop(mail):
                text = f"mail forwarding loop for {mail.recipients[0].address}"
                return Outcome.failed(text, "5.4.6", mail.transport)
            job = self._job(pipe, mail, self._owner(pipe))
        except UnsafeArgument as error:
            return Outcome.failed(str(error), "5.1.3", mail.transport)
        except _Unusable as error:
            text = f"mail transport unavailable: {pipe.where}: {error}"
            return Outcome.deferred(text, "4.3.5", "none")
        except OSError as error:
            return Outcome.deferred(f"queue file read error: {error.strerror}", "4.3.0", mail.transport)
        if mail.is_probe:
            return Outcome.delivered(f"delivers to command: {job.arguments[0]}", relay=mail.transport)
        outcome = self._agents.perform(job, mail.descriptor)
        return replace(outcome, relay=mail.transport, is_final="X" in attributes.flags)

    def _owner(self, pipe: Pipe) -> Owner:
        user, group = pipe.attributes.user, pipe.attributes.group
        try:
            owner = owner_named(user)
        except KeyError:
            raise _Unusable(f"user={user}: no such user") from None
        try:
            owner = replace(owner, gid=grp.getgrnam(group).gr_gid) if group else owner
        except KeyError:
            raise _Unusable(f"user={user}:{group}: no such group") from None
        own = self._rules.own_uid
        if own is not None and owner.uid != own:
            raise _Unusable(f"user={user}: this server is uid {own} and can become nobody else")
        if own is None and (owner.uid in self._rules.refused_uids or owner.gid == 0):
            raise _Unusable(f"user={user}: commands run neither as root nor as mail_owner")
        return owner

    def _job(self, pipe: Pipe, mail: Outgoing, owner: Owner) -> Job:
        attributes = pipe.attributes
        return Job(
            action=Action.PIPE,
            owner=owner,
            target=mail.transport,
            sender=str(mail.envelope.sender or ""),
            recipient=str(mail.recipients[0].address),
            prefix=_prefix(attributes, mail),
            content_offset=mail.content_offset,
            content_length=mail.content_length,
            environment=self._rules.environment,
            time_limit=pipe.time_limit,
            queue_id=mail.queue_id,
            arguments=arguments_for(attributes, mail, self._rules.split),
            directory=attributes.directory,
            flags="".join(sorted(attributes.flags)),
            eol=attributes.eol,
        )


def _prefix(attributes: PipeAttributes, mail: Outgoing) -> bytes:
    """The lines before the message, LF line ends, in mail_copy's order."""
    sender = str(mail.envelope.sender) if mail.envelope.sender is not None else attributes.null_sender
    first = mail.recipients[0]
    lines = {
        "F": from_line(sender, time.time()),
        "R": _field("Return-Path", f"<{sender}>"),
        "O": _field("X-Original-To", first.original or str(first.address)),
        "D": _field("Delivered-To", str(first.address)),
    }
    return b"".join(line for flag, line in lines.items() if flag in attributes.flags)


def _field(name: str, value: str) -> bytes:
    """One line, whoever chose the value."""
    clean = re.sub(r"[\x00-\x1f\x7f]", "?", value)
    return f"{name}: {clean}\n".encode("utf-8", "surrogateescape")


def _is_loop(mail: Outgoing) -> bool:
    """Whether the message has been delivered to its recipient before. Raises OSError."""
    head = os.pread(mail.descriptor, min(_HEADER_LIMIT, mail.content_length), mail.content_offset)
    header = head.partition(b"\n\n")[0]
    own = str(mail.recipients[0].address).lower().encode("utf-8", "surrogateescape")
    return any(found.strip().lower() == own for found in _DELIVERED_TO.findall(header))
