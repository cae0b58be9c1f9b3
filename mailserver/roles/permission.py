"""Who may submit mail, list the queue and flush it: the `authorized_…_users` parameters."""

from __future__ import annotations

import pwd
from collections.abc import Callable

from mailserver.accounts.account import Account
from mailserver.roles.parts import Parts
from mailserver.tables.lists import StringList, read_items
from mailserver.tables.table import TableError


def allowed_users(parts: Parts, name: str) -> Callable[[int], bool]:
    """Whether the user of that uid is on the list; root always is. Raises ConfigError.

    The function that is returned asks the system for names: *blocking.* A table that cannot be
    read allows nobody, with a warning.
    """
    config = parts.config
    words = config.words(name)
    if words == ("static:anyone",):
        return lambda uid: True
    try:
        users = StringList(read_items(words, parts.opener.table, config.where(name), config.directory))
    except TableError as error:
        raise config.error(name, str(error)) from error

    def may(uid: int) -> bool:
        if uid == 0:
            return True
        try:
            return users.find(user_name(uid)) is not None
        except TableError as error:
            parts.warn("pickup")(f"{name}: {error}")
            return False

    return may


def user_name(uid: int) -> str:
    """The name of that user, `unknown` where nobody has the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "unknown"


def is_user_of_system(account: Account) -> bool:
    """Whether the account is a user of the system under its own name."""
    try:
        return pwd.getpwuid(account.uid).pw_name.lower() == account.name
    except KeyError:
        return False
