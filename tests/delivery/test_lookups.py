"""Where virtual mailboxes lie: virtual(8), and what the passwd-file says instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.delivery.job import Owner
from mailserver.delivery.lookups import LiveLookups, virtual_mailbox
from mailserver.tables.table import TableError
from tests.queue.world import DictTable, World

PLACES = {"info@v.test": "v.test/info/", "@all.test": "all", "up@v.test": "../../etc/x", "none@v.test": "/"}


def test_places_below_the_base() -> None:
    """virtual_mailbox_maps: the address, then @domain; nothing without virtual_mailbox_base."""
    tables = (DictTable(PLACES),)
    assert virtual_mailbox(tables, "/srv/", "info@v.test") == ("/srv/v.test/info/", "aliases:1")
    assert virtual_mailbox(tables, "/srv", "any@all.test") == ("/srv/all", "aliases:2")
    assert virtual_mailbox(tables, "/srv", "nobody@v.test") is None
    assert virtual_mailbox(tables, "", "info@v.test") is None


@pytest.mark.parametrize("name", ["up@v.test", "none@v.test"])
def test_no_place_leads_out_of_the_base(name: str) -> None:
    """B9: `..` in a table is an error of the table, so the mail waits."""
    with pytest.raises(TableError, match="is no path below"):
        virtual_mailbox((DictTable(PLACES),), "/srv", name)


def test_accounts_and_places(tmp_path: Path) -> None:
    """userdb_mail, then the table, then mail_location; a place alone is an account without login."""
    world = World(tmp_path, virtual_mailbox_maps=(DictTable(PLACES),))
    rules = replace(
        world.rules,
        virtual_mailbox_base="/srv",
        virtual_owner=Owner("virtual", 5000, 5001, "/"),
        inbox_of=lambda account: f"/read/{account.name}/",
    )
    lookups = LiveLookups(world.routing, rules, world.agents)
    info = Account("info@v.test", 1, 1, "/home")
    assert lookups.mailbox(info)[0] == "/srv/v.test/info/"
    assert lookups.mailbox(replace(info, mail="maildir:/own")) == ("/read/info@v.test/", "userdb_mail")
    assert lookups.mailbox(Account("x@v.test", 1, 1, "/home")) == ("/read/x@v.test/", "mail_location")
    assert lookups.mailbox(Account("alice", 1, 1, "/home", mail="mbox:~/m"))[1] == "userdb_mail"
    found = lookups.account("info@v.test")
    assert found is not None and (found.uid, found.gid, found.may_login) == (5000, 5001, False)
    assert lookups.account("x@v.test") is None
