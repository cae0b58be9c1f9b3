"""GETQUOTA, GETQUOTAROOT and SETQUOTA: one quota root for the whole account. RFC 9208.

The store counts and limits. Limits stand in the passwd-file (`userdb_quota_rule`). Who has `userdb_admin=y`
there, as in Dovecot, changes them with SETQUOTA, and is announced QUOTASET; the root of another account is
then `USER:User quota`.
"""

from __future__ import annotations

from typing import Final

from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.contract import Quota
from mailserver.wire.imap_commands import Named, SetQuota
from mailserver.wire.imap_responses import string

ROOT: Final = b"User quota"  # Dovecot's name, which some clients show
_LARGEST: Final = 2**49  # octets or messages: what a rule can say


async def get_quota(session: Session, command: Named) -> Reply:
    """The account's figures and limits are told. RFC 9208 §4.1.1."""
    await _tell(session, _user_of(session, command.mailbox))
    return ok("Getquota completed.")


async def set_quota(session: Session, command: SetQuota) -> Reply:
    """The root has these limits and no others, where this is an administrator. RFC 9208 §4.1.3."""
    user, limits = _user_of(session, command.root), dict(command.limits)
    if not limits.keys() <= {"STORAGE", "MESSAGE"}:
        raise Refusal("Only STORAGE and MESSAGE can be limited.", b"CANNOT")
    octets, messages = limits.get("STORAGE", 0) * 1024, limits.get("MESSAGE", 0)
    if any(limit > _LARGEST for limit in (octets, messages)):
        raise Refusal("That is too much.", b"LIMIT")
    await session.run(session.store.set_quota, user, octets, messages)
    await _tell(session, user)
    return ok("Setquota completed.")


def _user_of(session: Session, root: str) -> str:
    """Whose root that is, "" for the session's own account; a Refusal where there is none."""
    user, colon, name = root.rpartition(":")
    if name.encode("utf-8") != ROOT or (colon and not (user and session.store.sets_quotas)):
        raise Refusal("There is no such quota root.", b"NONEXISTENT")
    return "" if user == session.account.name else user


async def get_quota_root(session: Session, command: Named) -> Reply:
    """Which root counts for the mailbox, there or not, and its figures. RFC 9208 §4.1.2.

    What another account stores is not this one's to know: no root is told.
    """
    if not session.store.is_own(command.mailbox):
        session.output.line(b"* QUOTAROOT " + session.name(command.mailbox))
        return ok("Getquotaroot completed.")
    session.output.line(b"* QUOTAROOT %b %b" % (session.name(command.mailbox), string(ROOT)))
    await _tell(session, "")
    return ok("Getquotaroot completed.")


async def _tell(session: Session, user: str) -> None:
    store = session.store
    quota = await (session.run(store.quota_of, user) if user else session.run(store.quota))
    words = b" ".join(_limited(quota)) if quota is not None else b""
    root = user.encode("utf-8") + b":" + ROOT if user else ROOT
    session.output.line(b"* QUOTA %b (%b)" % (string(root), words))


def _limited(quota: Quota) -> list[bytes]:
    """What is limited; RFC 9208 §4.2.1 leaves out the rest. STORAGE is in units of 1024 octets."""
    words = []
    if quota.octet_limit:
        words.append(b"STORAGE %d %d" % (-(-quota.octets // 1024), quota.octet_limit // 1024))
    if quota.message_limit:
        words.append(b"MESSAGE %d %d" % (quota.messages, quota.message_limit))
    return words
