"""Transcripts of sessions: off unless wanted, redacted, bounded, ended with the switch."""

from __future__ import annotations

import stat
import time
import zlib
from pathlib import Path

import pytest

from mailserver import rawlog
from mailserver.maillog import ListLog
from mailserver.rawlog import RawLog
from tests.imapd.harness import Server, message
from tests.pop3d.dialogue import Dialogue
from tests.store_memory import MemoryAccountStore, MemoryRegistry


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Alice's, with the switch on."""
    found = Path(rawlog.directory_of(str(tmp_path), "alice"))
    found.mkdir(parents=True)
    (found / "until").write_text(f"{time.time() + 600}\n")
    return found


def transcript(directory: Path) -> str:
    (path,) = (path for path in directory.iterdir() if path.name != "until")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text()


def imap(tmp_path: Path) -> Server:
    store = MemoryAccountStore()
    store.inbox.deliver(message("hello", "secret words\r\n"))
    return Server(registry=MemoryRegistry(alice=store), rawlog=RawLog(str(tmp_path), ListLog()))


def said(text: str) -> list[str]:
    """The lines without their times."""
    return [line.split(" ", 1)[1] for line in text.splitlines()]


def test_an_imap_session(tmp_path: Path, directory: Path) -> None:
    """Both sides, also what was sent together with the login."""
    server = imap(tmp_path)
    client = server.connect()
    client.feed(b"a LOGIN alice secret\r\nb SELECT INBOX\r\n")
    client.send(b"c UID FETCH 1 (FLAGS BODY[TEXT])")
    client.send(b"d LOGOUT")
    lines = said(transcript(directory))
    assert lines[0] == "C: b SELECT INBOX" and lines[1].startswith("S: a OK [CAPABILITY ")
    assert "C: c UID FETCH 1 (FLAGS BODY[TEXT])" in lines and "S: d OK Logout completed." in lines
    assert "secret" not in transcript(directory)


def test_a_compressed_session(tmp_path: Path, directory: Path) -> None:
    """What travels compressed is shown as it was said. RFC 4978."""
    client = imap(tmp_path).log_in()
    assert b"b OK" in client.ask(b"b COMPRESS DEFLATE")
    deflate = zlib.compressobj(wbits=-15)
    client.feed(deflate.compress(b"c SELECT INBOX\r\nd LOGOUT\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH))
    lines = said(transcript(directory))
    assert {"C: c SELECT INBOX", "C: d LOGOUT", "S: * 1 EXISTS", "S: d OK Logout completed."} <= set(lines)


def test_a_pop3_session(tmp_path: Path, directory: Path) -> None:
    """Messages are told by their octets, from RETR, from TOP, and where they were read ahead."""
    log = ListLog()
    dialogue = Dialogue(rawlog=RawLog(str(tmp_path), log))
    dialogue.log_in()
    for command in (b"UIDL", b"RETR 1", b"RETR 2", b"TOP 1 5", b"QUIT"):
        dialogue.ask(command)
    text = transcript(directory)
    assert "C: RETR 2" in text and "S: +OK 2 messages" not in text and "octets]" in text
    assert "C: UIDL" in text and "S: 2 " in text and "S: +OK Logging out." in text
    assert "Subject" not in text and "leading dot" not in text and "secret" not in text
    ((service, line),) = log.lines
    assert (
        service == "pop3" and "rawlog: the session <" in line and "of alice from 127.0.0.1 goes to " in line
    )


@pytest.mark.parametrize("switch", ["", "nonsense", "1000\n"])
def test_off_unless_wanted(tmp_path: Path, directory: Path, switch: str) -> None:
    """No switch, a broken one, one that is over: nothing is written."""
    (directory / "until").unlink()
    if switch:
        (directory / "until").write_text(switch)
    imap(tmp_path).log_in().send(b"b LOGOUT")
    assert {path.name for path in directory.iterdir()} <= {"until"}


def test_it_ends_with_the_switch(tmp_path: Path, directory: Path) -> None:
    """In the midst of a session, too."""
    client = imap(tmp_path).log_in()
    before = transcript(directory)
    (directory / "until").unlink()
    client.send(b"b NOOP")
    assert transcript(directory) == before


def test_bounds(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transcript has its largest size, an account its most transcripts; sessions go on."""
    monkeypatch.setattr(rawlog, "LARGEST", 600)
    client = imap(tmp_path).log_in()
    for _ in range(50):
        assert b"OK" in client.ask(b"b NOOP")
    text = transcript(directory)
    assert text.endswith("[the transcript is full]\n") and len(text) < 700
    monkeypatch.setattr(rawlog, "MOST", 1)
    log = ListLog()
    assert RawLog(str(tmp_path), log).begin("alice", "imap", "x", "192.0.2.1") is None
    assert "1 transcripts are there already" in log.lines[0][1]


def test_a_directory_that_cannot_be_written_stops_no_login(tmp_path: Path, directory: Path) -> None:
    """A warning, and the session goes on."""
    log = ListLog()
    raw = RawLog(str(tmp_path), log, now=lambda: 5.0)
    assert raw.begin("alice", "imap", "no/such", "192.0.2.1") is None
    assert "warning: rawlog: no transcript for alice" in log.lines[0][1]
