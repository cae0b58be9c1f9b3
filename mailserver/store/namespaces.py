"""Which names are whose: an account's own mailboxes, other users' and everybody's. RFC 2342.

    Work/2024               an own mailbox
    shared/bob/Work         bob's mailbox `Work`, where other users' prefix is `shared/%u/`
    Public/Announcements    a mailbox of the public namespace `Public/`

A public namespace is an account that nobody logs in to: its name holds a slash, which no login has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from mailserver.accounts.account import Account
from mailserver.store.contract import BadMailboxName
from mailserver.store.names import checked_name

USER: Final = "%u"
PUBLIC: Final = "public_namespace"  # in `Account.extra` of an account that is a namespace


@dataclass(frozen=True, slots=True)
class PublicNamespace:
    """A namespace with a directory of its own. `prefix` ends in a slash; `location` is a `mail_location`."""

    prefix: str
    location: str

    @property
    def has_private_index(self) -> bool:
        r"""Whether the location says, as Dovecot's does, that each user has a \Seen of his own."""
        return any(each.upper().startswith("INDEXPVT=") for each in self.location.split(":")[2:])

    def account(self) -> Account:
        """The account that stands for it."""
        return Account(
            f"public/{self.prefix.rstrip('/')}", -1, -1, "/", mail=self.location, may_login=False,
            extra={PUBLIC: self.prefix},
        )  # fmt: skip


def checked_prefix(prefix: str) -> str:
    """The prefix of a namespace, with its slash. Raises ValueError, which says what is wrong."""
    name = prefix.replace("%%", "%").rstrip("/")
    if not prefix.endswith("/"):
        raise ValueError(f"the prefix {prefix!r} must end in the separator /")
    try:
        if checked_name(name) != name or name.split("/")[0] == "INBOX":
            raise BadMailboxName("it must be plain text, not below INBOX")
    except BadMailboxName as error:
        raise ValueError(f"the prefix {prefix!r}: {error}") from error
    return name + "/"


def checked_shared_prefix(prefix: str) -> str:
    """The prefix of other users' mailboxes; "" for none. Raises ValueError."""
    if not prefix:
        return ""
    found = checked_prefix(prefix)
    if not found.endswith(f"/{USER}/") or found.count("%") != 1:
        raise ValueError(f"the prefix {prefix!r} must end in /{USER}/, the other user's name")
    return found


@dataclass(frozen=True)
class NamespaceRules:
    r"""What is shared here. `shared_prefix` is "" where accounts cannot share with each other.

    `private_seen` has the prefixes of those namespaces where \Seen is each user's own.
    """

    shared_prefix: str = ""
    public: Sequence[PublicNamespace] = field(default=())
    private_seen: frozenset[str] = frozenset()

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """What only names of others' mailboxes begin with."""
        found = [self.shared_root, *(each.prefix for each in self.public)]
        return tuple(root for root in found if root)

    @property
    def shared_root(self) -> str:
        """What the names of other users' mailboxes begin with, before the user."""
        return self.shared_prefix.removesuffix(f"{USER}/")

    def has_private_seen(self, public_prefix: str | None) -> bool:
        r"""Whether \Seen is each user's own in that public namespace, with None in others' mailboxes."""
        return (self.shared_prefix if public_prefix is None else public_prefix) in self.private_seen

    def prefix_of(self, user: str) -> str:
        """What the names of that user's mailboxes begin with, for others."""
        return self.shared_prefix.replace(USER, user)

    def public_of(self, name: str) -> PublicNamespace | None:
        """The public namespace that the name, or the namespace's own, lies in."""
        found = [each for each in self.public if f"{name}/".startswith(each.prefix)]
        return max(found, key=lambda each: len(each.prefix), default=None)

    def user_of(self, name: str) -> tuple[str, str] | None:
        """The other user and the name of his mailbox ("" for his namespace itself); None for another name."""
        root = self.shared_root
        if not root or not name.startswith(root):
            return None
        user, _, rest = name[len(root) :].partition("/")
        return user, rest
