"""mail, s-nail and mutt on the tutorial's machine, on terminals: what users of a mail host type."""

from __future__ import annotations

import pytest

from tests.end_to_end.machine import Machine, wait_until_quiet

pytestmark = [
    pytest.mark.needs("root", "unshare", "mail", "s-nail", "mutt", "swaks", "netstat"),
    pytest.mark.usefixtures("shown"),
]


def box(machine: Machine, name: str) -> str:
    """The account's spool file, once everything is delivered."""
    wait_until_quiet(machine)
    return machine.run(f"cat /var/mail/{name} 2>/dev/null || true")


def test_s_nail_reads_answers_deletes_and_saves(machine: Machine) -> None:
    """h ? 1 R d s q, as with its predecessor Heirloom mailx."""
    machine.run("rm -f /var/mail/user1 ~user1/first")
    for number in range(1, 5):
        machine.run(f"echo text-{number} | mail -s letter-{number} user1")
        wait_until_quiet(machine)
    machine.run("printf 'set dot\\nunset crt\\n' >> ~/.mailrc", "user1")
    terminal = machine.terminal("TERM=dumb s-nail", "user1")
    place = terminal.expect(r"4 messages 4 new(.|\n)*letter-1(.|\n)*letter-4(.|\n)*\? ")
    for typed, expected in (
        ("h", r"letter-4(.|\n)*\? "),
        ("?", r"(?i)command(.|\n)*\? "),
        ("1", r"text-1(.|\n)*\? "),
        ("R", r"(?i)subject: Re: letter-1"),
    ):
        terminal.type(f"{typed}\n")
        place = terminal.expect(expected, place)
    terminal.type("\nthank you\n.\n")
    place = terminal.expect(r"Send this message", place)
    terminal.type("yes\n")
    place = terminal.expect(r"\? ", place)
    for typed, expected in (
        ("d 3 4", r"\? "),
        ("h", r"letter-2(.|\n)*\? "),
        ("s 1 first", r"first(.|\n)*\? "),
    ):
        terminal.type(f"{typed}\n")
        place = terminal.expect(expected, place)
    terminal.type("q\n")
    assert terminal.end() == 0
    assert "text-1" in machine.run("cat first", "user1")
    left = machine.run("cat /var/mail/user1; cat mbox", "user1")
    assert "letter-2" in left and "letter-3" not in left
    assert "thank you" in box(machine, "root")


def test_mail_takes_its_text_from_a_file(machine: Machine) -> None:
    """`mail NAME < FILE`; a user's own mail has the user's name."""
    machine.run("echo from a file > text; mail -s redirected user02 < text", "hxz")
    found = box(machine, "user02")
    assert "Subject: redirected" in found and "\nfrom a file\n" in found
    assert "From hxz@www.hxz.ass " in found


def test_mutt_sends_with_its_options(machine: Machine) -> None:
    """-s subject, -a attachment, -i text, -b blind copy, -c copy; Bcc: reaches nobody's eyes."""
    machine.run("echo the text > text; echo the attachment > file.txt")
    machine.run("mutt -s 'mutt mail' -i text -b user02 -c hxz -a file.txt -- user1 < /dev/null")
    for name in ("user1", "hxz", "user02"):
        found = box(machine, name)
        assert "Subject: mutt mail" in found, name
        assert "the text" in found and 'filename="file.txt"' in found
        assert "Bcc:" not in found
    assert "Cc: hxz" in found


def test_mutt_composes_on_a_terminal(machine: Machine) -> None:
    """The compose menu of `mutt -s SUBJECT ADDRESS`, and y; to a domain that cannot be reached now."""
    machine.run(
        "mkdir -p Mail; printf '#!/bin/sh\\necho a mail from mutt! >> $1\\n' > editor; chmod 755 editor"
    )
    terminal = machine.terminal("EDITOR=/root/editor mutt -s 'mutt mail' assassing@163.com")
    place = terminal.expect(r"To: assassing@163\.com")
    terminal.type("\r")
    place = terminal.expect(r"Subject:(.|\n)*mutt mail", place)
    terminal.type("\r")
    place = terminal.expect(r"y:Send(.|\n)*text/plain, 7bit, us-ascii", place)
    terminal.type("y")
    assert terminal.end() == 0
    wait_until_quiet(machine)
    assert "assassing@163.com" in machine.run("postqueue -p")


def test_mutt_reads_over_imaps(machine: Machine) -> None:
    """`mutt -f imaps://HOST`: the certificate is shown, the password asked, the box listed."""
    machine.run("mkdir -p Mail; echo over imaps | mail -s by-imaps user02")
    wait_until_quiet(machine)
    terminal = machine.terminal("mutt -f imaps://user02@www.hxz.ass")
    place = terminal.expect(r"\(o\)")
    terminal.type("o")
    place = terminal.expect(r"(?i)password for user02@www\.hxz\.ass", place)
    terminal.type("secret-of-user02\r")
    place = terminal.expect("by-imaps", place)
    terminal.type("q")
    assert terminal.end() == 0
