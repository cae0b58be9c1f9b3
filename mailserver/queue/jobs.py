"""The job of a leaf: what an agent is told to do with a message, as whom, with which header lines."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.job import Action, Job, Owner
from mailserver.delivery.plan import Leaf, LeafKind
from mailserver.envelope import Address, Envelope, Outcome
from mailserver.queue.bounce import sender_of
from mailserver.queue.progress import Progress
from mailserver.queue.services import Services
from mailserver.store.quota_rules import rules_of

ACTIONS: Final = {
    LeafKind.MAILBOX: Action.MAILBOX,
    LeafKind.FILE: Action.FILE,
    LeafKind.COMMAND: Action.COMMAND,
}


def job_for(
    services: Services,
    progress: Progress,
    number: int,
    queue_id: str,
    content_offset: int,
    content_length: int,
) -> Job:
    """What is to be done for that leaf. *Blocking*: the owner's account is looked up."""
    leaf, root = progress.leaves[number], progress.root(number)
    sender = sender_of(progress, number)
    own = leaf.delivered_to or leaf.recipient
    original = root.original or str(own)
    owner = leaf.owner
    assert owner is not None
    envelope = progress.accepted.envelope
    is_command = leaf.kind is LeafKind.COMMAND
    return Job(
        action=ACTIONS[leaf.kind],
        owner=owner,
        target=leaf.target,
        sender=sender,
        recipient=str(own),
        prefix=_prefix(sender, original if services.enable_original_recipient else "", str(own)),
        content_offset=content_offset,
        content_length=content_length,
        environment=_environment(services, envelope, owner, own, original, sender) if is_command else {},
        size_limit=services.mailbox_size_limit,
        time_limit=services.command_time_limit,
        queue_id=queue_id,
        quota=_quota(services, owner) if leaf.kind is LeafKind.MAILBOX else "",
    )


def named(outcome: Outcome, leaf: Leaf) -> Outcome:
    """The outcome under the name of Postfix's agent for such a leaf."""
    is_virtual = leaf.kind is LeafKind.MAILBOX and leaf.owner is not None and "@" in leaf.owner.name
    return replace(outcome, relay="virtual") if is_virtual else outcome


def field_text(value: str) -> bytes:
    """Text in a header field of one line, whoever chose it (B12)."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", value).encode("utf-8", "surrogateescape")


def _prefix(sender: str, original: str, own: str) -> bytes:
    """The fields of this delivery; without `original` no X-Original-To."""
    first = b"X-Original-To: %s\n" % field_text(original) if original else b""
    return b"Return-Path: <%s>\n%sDelivered-To: %s\n" % (field_text(sender), first, field_text(own))


def _quota(services: Services, owner: Owner) -> str:
    """The rules of the mailbox's owner. An account that cannot be asked for now is not limited."""
    try:
        account = services.routing.accounts.lookup(owner.name)
    except TemporaryAccountFailure:
        return ""
    return rules_of(account.extra, services.quota_rules) if account is not None else ""


def _environment(
    services: Services, envelope: Envelope, owner: Owner, own: Address, original: str, sender: str
) -> dict[str, str]:
    """What commands find in their environment. local(8); values are filtered by the agent (B5)."""
    client = envelope.client
    return dict(services.environment) | {
        "SHELL": owner.shell or "/bin/sh",
        "HOME": owner.home,
        "USER": owner.name,
        "LOGNAME": owner.name,
        "EXTENSION": services.routing.split(own.local)[1],
        "DOMAIN": own.domain,
        "LOCAL": own.local,
        "RECIPIENT": str(own),
        "ORIGINAL_RECIPIENT": original,
        "SENDER": sender,
        "ENVID": envelope.envid,
        "CLIENT_ADDRESS": client.address,
        "CLIENT_HELO": client.helo,
        "CLIENT_HOSTNAME": client.name,
        "CLIENT_PROTOCOL": client.protocol,
        "SASL_METHOD": client.sasl_method,
        "SASL_SENDER": "",
        "SASL_USERNAME": client.login,
    }
