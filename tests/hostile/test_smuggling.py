"""SMTP smuggling over real connections: RELIABILITY B1, T3, T4."""

from __future__ import annotations

import pytest

from tests.end_to_end.server import Server, wait_for
from tests.hostile.attacker import Attacker

ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n", b"x" * 20_000]


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: repr(end[:8]))
def test_a_false_end_hides_no_second_message(server: Server, end: bytes, segments: int) -> None:
    """One message, whatever stands before the commands in it; none of them is obeyed."""
    name = f"smuggle-{ENDS.index(end)}-{segments}"
    content = f"Subject: {name}\r\n\r\nbody".encode()
    inner = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
    inner += b"Subject: evil\r\n\r\nx\r\n.\r\n"
    with Attacker(server, "smtp") as client:
        client.ask(b"EHLO attacker.test")
        client.ask(b"MAIL FROM:<x@example.net>")
        client.ask(b"RCPT TO:<alice@example.org>")
        assert client.ask(b"DATA").startswith(b"354")
        if segments == 1:
            client.send(content + end + inner)
        else:
            client.send(content + end)
            client.send(inner)
        assert client.reply()[:3] in (b"250", b"550")
        # The dot that ends `inner` ended the one message; what follows is a fresh command.
        assert client.ask(b"NOOP").startswith(b"250")
        assert client.ask(b"QUIT").startswith(b"221")
    inbox = server.inbox("alice")
    wait_for(lambda: inbox.exists() and f"Subject: {name}".encode() in inbox.read_bytes(), name)
    assert not server.inbox("bob").exists() or b"Subject: evil" not in server.inbox("bob").read_bytes()
    assert "from=<evil@example.net>" not in server.log_text()


def test_a_pipelined_session_behind_the_end_is_a_session(server: Server) -> None:
    """A true end of data is one: what is pipelined behind it counts, in order."""
    with Attacker(server, "smtp") as client:
        client.ask(b"EHLO attacker.test")
        client.send(b"MAIL FROM:<x@example.net>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
        replies = [client.reply()[:3] for _ in range(3)]
        client.send(b"Subject: true\r\n\r\nx\r\n.\r\nRSET\r\nQUIT\r\n")
        replies += [client.reply()[:3] for _ in range(3)]
    assert replies == [b"250", b"250", b"354", b"250", b"250", b"221"]
