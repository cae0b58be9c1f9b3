"""How fast one user may send: counted by login, from wherever it comes, and kept across a reload."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from mailserver.smtpd.limits import ClientLimits
from tests.queue.world import DictTable
from tests.smtpd.harness import Connection, House

LOOPBACK = "127.0.0.1"
TOO_MUCH = "450 4.7.1 Error: too much mail from {}\n"
TOO_MANY = "450 4.7.1 Error: too many recipients from {}\n"


def logged_in(house: House, name: str = "alice", address: str = LOOPBACK) -> Connection:
    """A client who has logged in."""
    client = house.connect(address)
    client.say("EHLO x")
    response = base64.b64encode(f"\0{name}\0secret".encode()).decode()
    assert client.say(f"AUTH PLAIN {response}").startswith("235 ")
    return client


def begins(client: Connection) -> str:
    """The reply to MAIL."""
    return client.say("MAIL FROM:<alice@example.org>", "RSET").replace("250 2.0.0 Ok\n", "")


def test_messages_of_a_user_are_counted_together(tmp_path: Path) -> None:
    """Two connections of mynetworks share the count; others have their own; an hour later it begins anew."""
    house = House(tmp_path, sasl_message_rate_limit=2, allow_plaintext_auth=True)
    first, second = logged_in(house), logged_in(house, address="10.1.1.1")
    assert begins(first).startswith("250 ") and begins(second).startswith("250 ")
    assert begins(first) == begins(second) == TOO_MUCH.format("alice")
    line = "warning: Message delivery request rate limit exceeded: 4 from unknown[10.1.1.1] for service smtp"
    assert house.log.lines[-1] == ("smtpd", f"{line}, sasl_username=alice")
    assert begins(logged_in(house, "bob")).startswith("250 ")
    house.clock.advance(299)
    assert begins(logged_in(house)) == TOO_MUCH.format("alice")
    house.clock.advance(3600)
    assert begins(logged_in(house)).startswith("250 ")


def test_recipients_of_a_user_are_counted(tmp_path: Path) -> None:
    """Over all messages; who has not logged in is not counted."""
    house = House(tmp_path, sasl_recipient_rate_limit=3)
    client = logged_in(house)
    for _ in range(2):
        client.say("RSET", "MAIL FROM:<alice@example.org>")
        said = client.say(*["RCPT TO:<bob@example.org>"] * 2)
    assert said == "250 2.1.5 Ok\n" + TOO_MANY.format("alice")
    stranger = house.connect()
    stranger.say("EHLO x", "MAIL FROM:<a@example.com>")
    assert stranger.say(*["RCPT TO:<bob@example.org>"] * 9) == "250 2.1.5 Ok\n" * 9


def test_a_table_knows_exceptions(tmp_path: Path) -> None:
    """smtpd_sasl_rate_limit_maps: 0 is no limit; what a table does not say is the general limit."""
    table = DictTable({"alice": "0 1", "bob": "3"})
    house = House(tmp_path, sasl_message_rate_limit=1, sasl_recipient_rate_limit=2, sasl_rate_limits=(table,))
    alice, bob = logged_in(house), logged_in(house, "bob")
    assert all(begins(alice).startswith("250 ") for _ in range(5))
    assert [begins(bob)[:3] for _ in range(4)] == ["250", "250", "250", "450"]
    alice.say("MAIL FROM:<>")
    assert alice.say(*["RCPT TO:<bob@example.org>"] * 2) == "250 2.1.5 Ok\n" + TOO_MANY.format("alice")


def test_tables_that_fail_are_a_fault_of_ours(tmp_path: Path) -> None:
    """451, and a line in the log that says where; never mail without a limit."""
    for table, cause in (
        (DictTable({"alice": "many"}), "write MESSAGES RECIPIENTS"),
        (DictTable(None), "cannot be read"),
    ):
        client = logged_in(house := House(tmp_path, sasl_rate_limits=(table,)))
        assert begins(client) == "451 4.3.0 Error: temporary lookup failure\n"
        assert house.log.lines[-1][1].startswith("warning: ") and cause in house.log.lines[-1][1]


def test_counts_are_handed_down() -> None:
    """A successor goes on counting where the time unit goes on, and nowhere else."""
    now = [10.0]
    old, new, late = (ClientLimits(lambda: now[0]) for _ in range(3))
    assert [old.count_user("message", "alice", 3600) for _ in range(3)] == [1, 2, 3]
    assert old.count("message", "192.0.2.7", 60) == 1
    exported = json.loads(json.dumps(old.exported()))
    new.count_user("message", "alice", 3600)
    new.adopt(exported)
    assert new.count_user("message", "alice", 3600) == 5
    assert new.count("message", "192.0.2.7", 60) == 2
    now[0] = 70.0
    late.adopt(exported)
    assert late.count_user("message", "alice", 3600) == 4
    assert late.count("message", "192.0.2.7", 60) == 1
