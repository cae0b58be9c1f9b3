"""The same mbox read and written by Debian's programs and by us. RELIABILITY P7, F28, F30."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mailserver.store.contract import ANSWERED, FLAGGED, SEEN, NewMessage
from mailserver.store.mbox import deposit
from tests.store.test_mbox import Index, keys


def message(number: int) -> bytes:
    fields = (
        b"From: a@a.example\nTo: alice\nDate: Tue, 24 Nov 2026 02:22:04 +0000\nMessage-ID: <%d@a.example>\n"
    )
    return fields % number + b"Subject: n%d\n\nFrom %d\nbody\n" % (number, number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "alice"
    for number in range(1, 4):
        deposit(str(path), "a@example.org", [message(number)])
    return path


@pytest.fixture
def index(path: Path) -> Index:
    index = Index(path)
    index.poll()
    return index


def run(path: Path, *command: str, commands: str = "") -> str:
    """What a program that reads commands says about the mailbox."""
    environment = {"HOME": str(path.parent), "PATH": os.environ["PATH"], "TERM": "dumb", "LC_ALL": "C"}
    return subprocess.run(
        command, input=commands, env=environment, cwd=path.parent, capture_output=True, text=True, timeout=30
    ).stdout


def mutt(path: Path, keystrokes: str, *settings: str) -> None:
    """mutt, on a terminal of its own, has done what was typed, and has ended."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update(HOME=str(path.parent), TERM="xterm", LC_ALL="C")
        options = (
            "move=no",
            "quit=yes",
            "delete=yes",
            "mark_old=yes",
            "sort=mailbox-order",
            "folder=~",
            *settings,
        )
        setting = [word for option in options for word in ("-e", f"set {option}")]
        os.execvp(
            "mutt", ["mutt", "-n", "-F", "/dev/null", *setting, "-e", f"push '{keystrokes}'", "-f", str(path)]
        )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:
                break
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.needs("bsd-mailx")
def test_mail_reads_ours(path: Path, index: Index) -> None:
    """mail(1) lists our messages, tells new from read, and what it did is seen."""
    index.append(NewMessage(message(4).replace(b"\n", b"\r\n"), frozenset({SEEN})))
    listing = run(path, "bsd-mailx", "-n", "-N", "-f", str(path), commands="headers\ntype 2\nquit\n")
    lines = [line for line in listing.splitlines() if line.endswith(("n1", "n2", "n3", "n4"))]
    assert [line[:2].strip("> ") for line in lines[:4]] == ["N", "N", "N", ""]
    assert ">From 2\nbody" in listing
    one, two, three, four = keys(index)
    delta = index.poll()
    assert delta.flags == {two: {SEEN}}
    assert index.subjects() == ["n1", "n2", "n3", "n4"]
    assert keys(index) == [one, two, three, four]


@pytest.mark.needs("bsd-mailx")
def test_mail_deletes(path: Path, index: Index) -> None:
    """What mail(1) deletes is gone for us; the others keep their names."""
    one, two, three = keys(index)
    run(path, "bsd-mailx", "-n", "-N", "-f", str(path), commands="delete 2\nquit\n")
    assert index.poll().removed == [two]
    assert keys(index) == [one, three]
    index.remove(one)
    assert index.subjects() == ["n3"]


@pytest.mark.needs("s-nail")
def test_s_nail(path: Path, index: Index) -> None:
    """s-nail's flags are ours, ours are its."""
    one, two, _ = keys(index)
    index.flag({one: frozenset({SEEN, ANSWERED})})
    index.settle()
    listing = run(path, "s-nail", "-:/", "-Sshowto=no", "-f", str(path), commands="from :a\nflag 2\nquit\n")
    assert [line for line in listing.splitlines() if line.endswith("n1") or " n1 " in line]
    flags = index.poll().flags
    assert flags is not None and FLAGGED in flags[two]
    assert index.messages[one].flags == {SEEN, ANSWERED}


@pytest.mark.needs("mutt")
def test_mutt_flags_and_deletes(path: Path, index: Index) -> None:
    """mutt flags the first message and deletes the second; it rewrites with Content-Length and Lines."""
    one, two, three = keys(index)
    mutt(path, "<first-entry><set-flag>!<delete-message><quit>")
    delta = index.poll()
    assert delta.removed == [two]
    assert delta.flags == {one: {FLAGGED}}
    assert index.subjects() == ["n1", "n3"]
    assert b"Content-Length:" not in index.format.read(one)
    assert keys(index) == [one, three]
    index.flag({three: frozenset({SEEN, FLAGGED})})
    index.settle()
    assert index.subjects() == ["n1", "n3"]


@pytest.mark.needs("mutt")
def test_mutt_sees_our_flags(path: Path, index: Index) -> None:
    """What we wrote is what mutt shows: it deletes all that is flagged, and nothing else."""
    one, two, three = keys(index)
    index.flag({one: frozenset({FLAGGED}), three: frozenset({FLAGGED, SEEN})})
    index.settle()
    mutt(path, "<delete-pattern>~F<enter><quit>")
    assert list(index.poll().removed) == [one, three]
    mutt(path, "<delete-pattern>~A<enter><quit>", "save_empty=no")
    assert list(index.poll().removed) == [two]
    assert not path.exists()
    deposit(str(path), "a@b", [message(1)])
    assert [found.key for found in index.poll().added] == [one]


@pytest.mark.needs("procmail")
def test_procmail_and_we_take_turns(path: Path, index: Index) -> None:
    """procmail delivers while we deliver and rewrite at the same time; all is there, once."""
    recipe = path.with_name("procmailrc")
    recipe.write_text(f"MAILDIR={path.parent}\nLOCKSLEEP=1\nDEFAULT={path}\n")
    recipe.chmod(0o600)
    children = [
        subprocess.Popen(["procmail", "-m", str(recipe)], stdin=subprocess.PIPE, cwd=path.parent)
        for _ in range(5)
    ]
    for number, child in enumerate(children):
        assert child.stdin is not None
        child.stdin.write(b"From a@example.org  Tue Nov 24 02:22:04 2026\n" + message(100 + number))
        child.stdin.close()
        deposit(str(path), "a@example.org", [message(200 + number)])
        index.poll()
        index.remove(keys(index)[0])
    assert [child.wait() for child in children] == [0] * 5
    index.poll()
    found = sorted(int(subject[1:]) for subject in index.subjects())
    expected = {1, 2, 3, *range(100, 105), *range(200, 205)}
    assert len(found) == len(set(found)) == len(expected) - 5
    assert set(found) < expected


@pytest.mark.needs("mutt", "bsd-mailx")
def test_you_have_mail(path: Path) -> None:
    """`mail -e` and mutt -z agree with us on whether there is mail."""
    environment = {**os.environ, "HOME": str(path.parent)}
    assert subprocess.run(["bsd-mailx", "-e", "-f", str(path)], env=environment).returncode == 0
    empty = path.with_name("empty")
    index = Index(empty)
    index.remove(*index.append(NewMessage(b"A: b\r\n\r\n")))
    assert empty.read_bytes() == b""
    assert (
        subprocess.run(["mutt", "-z", "-f", str(empty)], env=environment, capture_output=True).returncode == 1
    )
