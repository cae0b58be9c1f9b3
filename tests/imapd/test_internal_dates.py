"""INTERNALDATE and the days of SEARCH, in the time zone of the server. RFC 3501 §2.3.3, §6.4.4; RFC 8514."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from mailserver.imapd import fetch_rows
from mailserver.store.contract import NewMessage
from tests.imapd.harness import Client, Server, message

EASTERN_EUROPE = "EET-2EEST,M3.5.0/3,M10.5.0/4"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """INBOX holds messages around the midnights when summer time begins and ends, in Eastern Europe."""
    dates = [
        "2007-03-24T23:59:59+02:00",
        "2007-03-25T00:00:00+02:00",
        "2007-03-25T23:59:59+03:00",
        "2007-03-26T00:00:00+03:00",
        "2007-10-28T00:00:00+03:00",
        "2007-10-28T23:59:59+02:00",
        "2007-10-29T00:00:00+02:00",
    ]
    server = Server()
    moments = [int(datetime.fromisoformat(date).timestamp()) for date in dates]
    server.store.inbox.append([NewMessage(message("x"), internal_date=moment) for moment in moments])
    fetch_rows._date_text.cache_clear()
    with monkeypatch.context() as patch:
        patch.setenv("TZ", EASTERN_EUROPE)
        time.tzset()
        yield server.select()
    time.tzset()
    fetch_rows._date_text.cache_clear()


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"BEFORE 25-Mar-2007", b" 1"),
        (b"ON 24-Mar-2007", b" 1"),
        (b"ON 25-Mar-2007", b" 2 3"),
        (b"SINCE 26-Mar-2007", b" 4 5 6 7"),
        (b"ON 28-Oct-2007", b" 5 6"),
        (b"BEFORE 28-Oct-2007", b" 1 2 3 4"),
        (b"SINCE 29-Oct-2007", b" 7"),
        (b"SINCE 1-Jan-0001 BEFORE 31-Dec-9999", b" 1 2 3 4 5 6 7"),
    ],
)
def test_a_day_begins_at_midnight_where_the_server_is(client: Client, key: bytes, found: bytes) -> None:
    """It has 23 hours when summer time begins and 25 when it ends; any year of the grammar will do."""
    said = client.ask(b"a SEARCH " + key)
    assert said.startswith(b"* SEARCH" + found + b"\r\n"), said


def test_the_day_of_a_message_is_the_one_that_fetch_says(client: Client) -> None:
    """Every message is found on the day of its INTERNALDATE, whose zone is disregarded. RFC 3501 §6.4.4."""
    said = client.ask(b"a FETCH 1:* INTERNALDATE")
    assert b'* 1 FETCH (INTERNALDATE "24-Mar-2007 23:59:59 +0200")\r\n' in said
    assert b'* 3 FETCH (INTERNALDATE "25-Mar-2007 23:59:59 +0300")\r\n' in said
    days = [row.partition(b" ")[0] for row in said.split(b'INTERNALDATE "')[1:]]
    assert len(days) == 7
    for number, day in enumerate(days, 1):
        assert client.ask(b"b SEARCH %d ON %b" % (number, day)).startswith(b"* SEARCH %d\r\n" % number)


def test_the_save_date_too(client: Client) -> None:
    """SAVEDON means the day that FETCH SAVEDATE says. RFC 8514 §4.2, §4.3."""
    day = client.ask(b"a FETCH 1 SAVEDATE").partition(b'SAVEDATE "')[2].partition(b" ")[0]
    assert client.ask(b"b SEARCH SAVEDON " + day).startswith(b"* SEARCH 1")
