"""Public namespaces where mail has many owners: Unix groups decide who reaches them, then their ACLs.

The directory of a namespace belongs to a group and has mode 2770 (`store.shared_files`). Session hosts of the
group's members get the group, and share the namespace's state in a directory of the same group and mode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from mailserver.accounts.account import Account
from mailserver.roles.parts import Parts
from mailserver.store.contract import StoreFailure
from mailserver.store.layout import Kind
from mailserver.store.namespaces import PublicNamespace
from mailserver.store.registry import state_name
from mailserver.store.shared_files import group_bits

_REACHES = os.R_OK | os.W_OK | os.X_OK


def problems_of_public(parts: Parts) -> Iterator[str]:
    """What keeps users of the system from sharing namespaces."""
    for namespace in parts.store.namespace_rules.public:
        try:
            _shared_root(parts, namespace)
        except (OSError, StoreFailure, ValueError) as error:
            yield _left_out(namespace, error)


def _left_out(namespace: PublicNamespace, error: Exception) -> str:
    return f"public_namespaces: {namespace.prefix}: {error}: the namespace is left out"


def prepare_public(parts: Parts, accounts_directory: str) -> Iterator[str]:
    """The state of each namespace that can be shared has a directory; what is wrong with others. As root."""
    for namespace in parts.store.namespace_rules.public:
        try:
            root = _shared_root(parts, namespace)
            _make_state(os.path.join(accounts_directory, state_name(namespace.account())), root)
        except (OSError, StoreFailure, ValueError) as error:
            yield _left_out(namespace, error)


def _shared_root(parts: Parts, namespace: PublicNamespace) -> str:
    """The namespace's directory. Raises ValueError where no group shares it."""
    layout = parts.store.layout_for(namespace.account())
    if layout.kind is not Kind.MAILDIR:
        raise ValueError("users of the system can share maildirs, not mboxes: write maildir:")
    if os.stat(layout.root).st_gid == 0 or group_bits(layout.root) != 0o070:
        raise ValueError(f"{layout.root}: no group shares it: chgrp GROUP it, chmod 2770 it, and start again")
    return layout.root


def _make_state(path: str, root: str) -> None:
    """The directory is there, root's and of the group. `path` lies where only root writes."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(f"{path} is no directory")
    os.chown(path, 0, os.stat(root).st_gid, follow_symlinks=False)
    os.chmod(path, 0o2770)


def groups_for(parts: Parts, account: Account) -> tuple[int, ...]:
    """The groups of namespaces that the account is a member of: its session host gets them."""
    memberships = set(os.getgrouplist(account.name, account.gid)) - {0}
    found = set()
    for namespace in parts.store.namespace_rules.public:
        try:
            found.add(os.stat(_shared_root(parts, namespace)).st_gid)
        except (OSError, StoreFailure, ValueError):
            continue  # told at the start
    return tuple(sorted(found & memberships))


def reachable(parts: Parts, accounts_directory: str) -> Sequence[PublicNamespace]:
    """Those that this process may read and write."""
    found = []
    for namespace in parts.store.namespace_rules.public:
        account = namespace.account()
        places = parts.store.layout_for(account).root, os.path.join(accounts_directory, state_name(account))
        if all(os.access(place, _REACHES) for place in places):
            found.append(namespace)
    return found
