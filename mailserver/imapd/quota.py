"""GETQUOTA, GETQUOTAROOT and SETQUOTA: one quota root for the whole account. RFC 9208.

The store counts and limits. Limits stand in the passwd-file (`userdb_quota_rule`), which no session may
write: SETQUOTA is always refused, and QUOTASET not announced.
"""

from __future__ import annotations

from typing import Final

from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.contract import Quota
from mailserver.wire.imap_commands import Named
from mailserver.wire.imap_responses import string

ROOT: Final = b"User quota"  # Dovecot's name, which some clients show


async def get_quota(session: Session, command: Named) -> Reply:
    """The account's figures and limits are told. RFC 9208 §4.1.1."""
    if command.mailbox.encode("utf-8") != ROOT:
        raise Refusal("There is no such quota root.", b"NONEXISTENT")
    await _tell(session)
    return ok("Getquota completed.")


async def set_quota(session: Session, command: Named) -> Reply:
    """Refused: limits are the administrator's, in the passwd-file. RFC 9208 §4.1.3."""
    if command.mailbox.encode("utf-8") != ROOT:
        raise Refusal("There is no such quota root.", b"NONEXISTENT")
    raise Refusal("The administrator sets quota, with userdb_quota_rule in the passwd-file.", b"NOPERM")


async def get_quota_root(session: Session, command: Named) -> Reply:
    """Which root counts for the mailbox, there or not, and its figures. RFC 9208 §4.1.2.

    What another account stores is not this one's to know: no root is told.
    """
    if not session.store.is_own(command.mailbox):
        session.output.line(b"* QUOTAROOT " + session.name(command.mailbox))
        return ok("Getquotaroot completed.")
    session.output.line(b"* QUOTAROOT %b %b" % (session.name(command.mailbox), string(ROOT)))
    await _tell(session)
    return ok("Getquotaroot completed.")


async def _tell(session: Session) -> None:
    quota = await session.run(session.store.quota)
    words = b" ".join(_limited(quota)) if quota is not None else b""
    session.output.line(b"* QUOTA %b (%b)" % (string(ROOT), words))


def _limited(quota: Quota) -> list[bytes]:
    """What is limited; RFC 9208 §4.2.1 leaves out the rest. STORAGE is in units of 1024 octets."""
    words = []
    if quota.octet_limit:
        words.append(b"STORAGE %d %d" % (-(-quota.octets // 1024), quota.octet_limit // 1024))
    if quota.message_limit:
        words.append(b"MESSAGE %d %d" % (quota.messages, quota.message_limit))
    return words
