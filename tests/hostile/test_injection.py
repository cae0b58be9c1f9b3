"""Text from the network that would like to be shell, header or envelope: RELIABILITY B5, B12."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, running, wait_for
from tests.hostile.attacker import Attacker

LOCAL_PARTS = [
    '"$(touch {mark})"',
    '"`touch {mark}`"',
    '";touch {mark};"',
    '"|touch {mark}"',
    "\"'; touch {mark}; '\"",
    '"&&touch {mark}"',
    '"${{run{{/usr/bin/touch {mark}}}}}"',
    '"-oX{mark}"',
    '">{mark}"',
    '"a\\\\\\"; touch {mark} #"',
    '"' + "x" * 40 + '"',
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Mail for alice goes to a command of hers, everybody else's to mailbox_command, both by a shell."""
    directory = tmp_path_factory.mktemp("injection")
    save = shlex.quote(f"{directory}/saved")
    command = f'cat >> {save}; echo "[$SENDER|$RECIPIENT|$EXTENSION|$CLIENT_HELO]" >> {save}'
    with running(directory / "home", "mbox", f"mailbox_command = {command}") as server:
        forward = server.directory / "home" / "alice" / ".forward"
        escaped = command.replace('"', '\\"')
        forward.write_text(f'"|{escaped}"\n')
        forward.chmod(0o644)
        yield server


def saved(house: Server) -> str:
    """What the commands have written so far."""
    path = house.directory.parent / "saved"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("recipient", ["alice", "bob"])
@pytest.mark.parametrize("number", range(len(LOCAL_PARTS)))
def test_addresses_never_reach_a_shell(house: Server, tmp_path: Path, recipient: str, number: int) -> None:
    """As sender, as extension of the recipient, in HELO and in the header: delivered, and nothing is run."""
    mark = tmp_path / "mark"
    hostile = LOCAL_PARTS[number].format(mark=mark)
    bare = hostile.strip('"').replace("\\", "")
    identifier = f"inject-{number}-{recipient}"
    with Attacker(house, "smtp", "127.0.0.1") as client:
        client.ask(f"HELO $(touch${{IFS}}{mark})".encode())
        client.ask(b"EHLO attacker.test")
        assert client.ask(f"MAIL FROM:<{hostile}@evil.test>".encode())[:3] in (b"250", b"501", b"553")
        if client.ask(b"NOOP").startswith(b"250"):
            client.ask(b"RSET")
        client.ask(f"MAIL FROM:<{hostile}@evil.test>".encode())
        for address in (f"{recipient}@example.org", f'"{recipient}+{bare}"@example.org'):
            client.ask(f"RCPT TO:<{address}>".encode())
        if client.ask(b"DATA").startswith(b"354"):
            header = f"Subject: {identifier}\r\nFrom: {hostile} <x@evil.test>\r\nX-Run: $(touch {mark})\r\n"
            assert client.ask(header.encode() + b"\r\nhi\r\n.").startswith(b"250")
            wait_for(lambda: f"Subject: {identifier}\n" in saved(house), identifier)
    assert not mark.exists()
    environments = [line for line in saved(house).splitlines() if line.startswith("[")]
    assert not any(set(line) & set("$`;|&'\"\\<>") - {"|"} for line in environments)


@pytest.mark.parametrize(
    "parameter",
    [
        b"ENVID=a+0D+0AX-Injected:+20yes",
        b"ENVID=a+0AX-Injected",
        b"RET=HDRS\rX-Injected: yes",
        b"AUTH=<+0D+0A>",
    ],
)
def test_parameters_of_mail_inject_no_line(house: Server, parameter: bytes) -> None:
    """Control characters are refused after xtext is undone."""
    with Attacker(house, "smtp", "127.0.0.1") as client:
        client.ask(b"EHLO attacker.test")
        assert client.ask(b"MAIL FROM:<x@evil.test> " + parameter)[:1] == b"5"


@pytest.mark.parametrize("orcpt", [b"rfc822;a+0D+0AX-Injected:+20yes", b"rfc822;a+00b", b"rfc822;a%0d%0a+0A"])
def test_parameters_of_rcpt_inject_no_line(house: Server, orcpt: bytes) -> None:
    """As Postfix learned of `+00` in ORCPT in 2026."""
    with Attacker(house, "smtp", "127.0.0.1") as client:
        client.ask(b"EHLO attacker.test")
        client.ask(b"MAIL FROM:<x@evil.test>")
        assert client.ask(b"RCPT TO:<bob@example.org> ORCPT=" + orcpt)[:1] == b"5"


def test_a_greeting_injects_no_header(house: Server) -> None:
    """What HELO says stands in Received: on one line, or is refused."""
    with Attacker(house, "smtp", "127.0.0.1") as client:
        client.ask(b"HELO a\rX-Injected: yes")
        client.ask(b"HELO attacker.test\x0bX-Injected: yes")
        client.ask(b"HELO attacker.test")
        client.ask(b"MAIL FROM:<x@evil.test>")
        client.ask(b"RCPT TO:<bob@example.org>")
        assert client.ask(b"DATA").startswith(b"354")
        assert client.ask(b"Subject: greeted\r\n\r\nhi\r\n.").startswith(b"250")
    wait_for(lambda: "Subject: greeted" in saved(house), "the message")
    assert "\nX-Injected" not in saved(house)
