"""`mailserver test ADDRESS` against a running server: delivered, bounced, and waiting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("probe")
    with running(
        home / "home", "mbox", "relayhost = [127.0.0.1]:1", f"maillog_file = {home}/mail.log"
    ) as server:
        yield server


def test_a_message_is_watched_to_its_end(server: Server) -> None:
    """Pickup, queue and delivery are shown; exit status 0 says that it lies in the box."""
    text = server.command("test", "alice@example.org")
    assert "pickup" in text and "status=sent (delivered to mailbox)" in text
    assert b"Sent by `mailserver test`." in server.inbox("alice").read_bytes()


def test_what_bounces_or_waits_has_exit_status_1(server: Server) -> None:
    """The bounce follows its message; a message that waits says so."""
    bounced = server.command("test", "--from", "alice@example.org", "nobody-here@example.org", status=1)
    assert "status=bounced" in bounced and "non-delivery notification" in bounced
    waiting = server.command("test", "--from", "alice@example.org", "far@example.net", status=1)
    assert "now in deferred" in waiting and "far@example.net waits: connect to" in waiting
