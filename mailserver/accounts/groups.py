"""The groups that somebody is in, for ACLs: those of `acl_groups` and those of /etc/group."""

from __future__ import annotations

import grp
import pwd

from mailserver.accounts.account import Account


def groups_of(account: Account) -> frozenset[str]:
    """Names of groups: the passwd-file's `acl_groups` (Dovecot's field), and where the name is a member.

    *Blocking.* The group that a system account has by passwd counts; one that all mail belongs to does not.
    """
    extra = account.extra.get("acl_groups") or account.extra.get("userdb_acl_groups") or ""
    named = {word.strip() for word in extra.split(",") if word.strip()}
    member = {entry.gr_name for entry in grp.getgrall() if account.name in entry.gr_mem}
    return frozenset(named | member | _primary(account))


def _primary(account: Account) -> set[str]:
    try:
        entry = pwd.getpwnam(account.name)
        return {grp.getgrgid(entry.pw_gid).gr_name} if entry.pw_uid == account.uid else set()
    except KeyError:
        return set()
