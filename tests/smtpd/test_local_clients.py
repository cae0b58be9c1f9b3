"""Whose headers are completed: local_header_rewrite_clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.smtpd.local_clients import WORDS, LocalClients
from tests.queue.world import DictTable
from tests.smtpd.harness import NEIGHBOUR, STRANGER, House
from tests.smtpd.test_rates import LOOPBACK, logged_in

EVERYWHERE = (LOOPBACK, "203.0.113.1", NEIGHBOUR, STRANGER)


def completed(house: House, address: str, login: str = "") -> bool:
    """Whether a message of that client gets the Date: that it lacks."""
    client = logged_in(house, login, address) if login else house.connect(address)
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA")
    said = client.say("Subject: x", "", ".")
    assert "queued as" in said, said
    return b"\nDate: " in house.contents()[-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("permit_inet_interfaces",), [LOOPBACK, "203.0.113.1"]),
        (("permit_mynetworks",), [LOOPBACK, NEIGHBOUR]),
        (("permit_sasl_authenticated", "permit_tls_all_clientcerts", "permit_tls_clientcerts"), []),
        ((), []),
    ],
)
def test_who_is_local(tmp_path: Path, words: tuple[str, ...], expected: list[str]) -> None:
    """By address; nobody without a word."""
    own = LocalClients(words, is_own={"203.0.113.1"}.__contains__)
    house = House(tmp_path, local_clients=own)
    assert [address for address in EVERYWHERE if completed(house, address)] == expected


def test_users_and_tables(tmp_path: Path) -> None:
    """A login counts where it is named, an address where a table has it; a table that fails is our fault."""
    house = House(tmp_path / "1", allow_plaintext_auth=True)
    assert completed(house, STRANGER, "alice") and not completed(house, STRANGER)
    house = House(tmp_path / "2", local_clients=LocalClients((), tables=(DictTable({STRANGER: "x"}),)))
    assert completed(house, STRANGER) and not completed(house, LOOPBACK)
    client = House(tmp_path / "3", local_clients=LocalClients((), tables=(DictTable(None),))).connect()
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>")
    assert client.say("DATA") == "451 4.3.0 Error: temporary lookup failure\n"
    assert client.say("BDAT 3 LAST\r\nx\n").startswith("451 4.3.0 ")


def test_every_word_is_known() -> None:
    """Each has a meaning."""
    LocalClients(WORDS)
