"""A server whose accounts share mailboxes: alice, bob, carol and dave, and the public namespace.

Alice administers the public namespace; staff (alice and carol) may read and post.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mailserver.accounts.account import Account
from mailserver.imapd.settings import ImapSettings
from mailserver.imapd.url_access import NO_URLS, UrlServer
from mailserver.store.acl import parse_acl
from mailserver.store.acl_files import AclFiles
from mailserver.store.layout import Layout, layout_for
from mailserver.store.namespaces import NamespaceRules, PublicNamespace
from mailserver.store.registry import FileStoreRegistry, layout_of
from mailserver.store.shared_boxes import SharedBoxes
from mailserver.store.sharing import SharingRegistry
from tests.imapd.harness import Server

NAMES = ("alice", "bob", "carol", "dave")
STAFF = "staff"  # alice and carol
LOCATIONS = (
    "maildir:%h/Maildir",
    "maildir:%h/Maildir:LAYOUT=fs",
    "mbox:%h/mail:INBOX=%h/inbox",
)


def accounts(directory: Path) -> Mapping[str, Account]:
    """Everybody, with a home each."""
    found = {}
    for name in NAMES:
        home = directory / "home" / name
        home.mkdir(parents=True, exist_ok=True)
        found[name] = Account(name, os.geteuid(), os.getegid(), str(home))
    return found


class SharingServer(Server):
    r"""See the module. `location` is where mail lies, the public namespace's in the same format.

    With `private_seen` \Seen is each user's own in all that is shared.
    """

    def __init__(
        self,
        directory: Path,
        location: str = LOCATIONS[0],
        acl_anyone: bool = True,
        change: Callable[[Layout], Layout] = lambda layout: layout,
        private_seen: bool = False,
        urls: UrlServer = NO_URLS,
    ) -> None:
        self.people = accounts(directory)
        self.public_root = directory / "public"
        kind, _, rest = location.partition(":")
        layout = ":LAYOUT=fs" if "LAYOUT=fs" in rest else ""
        public = PublicNamespace("Public/", f"{kind}:{self.public_root}{layout}")
        seen = frozenset({"shared/%u/", "Public/"} if private_seen else ())
        self.rules = NamespaceRules("shared/%u/", (public,), seen)
        self.warnings: list[str] = []

        def place(account: Account) -> Layout:
            return change(layout_for(account, location))

        self.files = FileStoreRegistry(place, str(directory / "state"), "host.example")
        self.acls = AclFiles(partial(layout_of, layout_for=place), self.warnings.append)
        self.sharing = SharingRegistry(
            self.files,
            self.acls,
            SharedBoxes(str(directory / "shared-mailboxes")),
            self.people.get,
            lambda account: frozenset({STAFF} if account.name in ("alice", "carol") else ()),
            self.rules,
        )
        self.acls.update(self.public, "", lambda acl: parse_acl("user=alice lrswipkxtea\ngroup=staff lri\n"))
        super().__init__(ImapSettings(acl_anyone=acl_anyone, urls=urls), self.sharing)
        self.logins.accounts.update(self.people)

    @property
    def public(self) -> Account:
        """The account that stands for the public namespace."""
        return self.sharing.public["Public/"]

    def close(self) -> None:
        """All stores are closed."""
        self.files.shut()
