"""postsuper(1) and postcat(1) on real queue files, no server running."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest

from mailserver.commands import postcat, postsuper
from mailserver.queue import drop_file
from mailserver.queue.directory import QueueDirectory, State
from tests.queue.world import envelope

pytestmark = pytest.mark.usefixtures("umask")  # which postsuper changes for its process


class Home:
    """A configuration, and a queue with messages in it."""

    def __init__(self, base: Path) -> None:
        (base / "main.cf").write_text(
            "queue_directory = $config_directory/queue\nmaillog_file = /dev/stdout\n"
        )
        (base / "master.cf").write_text("")
        self.queue = QueueDirectory(str(base / "queue"))
        self.queue.prepare()

    def put(self, state: State, content: bytes = b"Subject: hi\n\nhello\n") -> str:
        message = self.queue.create(envelope("bob@example.org", "carol@example.net"))
        message.write(content)
        committed = message.commit()
        self.queue.move(committed, state)
        committed.close()
        return committed.queue_id

    def ids(self, state: State) -> list[str]:
        return sorted(os.listdir(self.queue.path_of("", state)))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    return Home(tmp_path)


def test_delete_all_of_one_queue(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """ALL with a queue's name; held mail stays."""
    gone = [home.put(State.DEFERRED), home.put(State.DEFERRED)]
    kept = home.put(State.HOLD)
    assert postsuper.main(["-d", "ALL", "deferred"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        *(f"postsuper: {each}: removed" for each in sorted(gone)),
        "postsuper: Deleted: 2 messages",
    ]
    assert (home.ids(State.DEFERRED), home.ids(State.HOLD)) == ([], [kept])


def test_ids_on_standard_input(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-`: one id a line; nonsense is warned about, an unknown id passed over."""
    one = home.put(State.DEFERRED)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{one}\n../../etc/passwd\n\nFFFFFFFFFFF\n"))
    assert postsuper.main(["-d", "-"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"postsuper: {one}: removed",
        "postsuper: warning: invalid mail queue id: ../../etc/passwd",
        "postsuper: Deleted: 1 message",
    ]


def test_unknown_ids_are_no_failure(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """ECOSYSTEM §7: status 0."""
    assert postsuper.main(["-d", "FFFFFFFFFFF"]) == 0
    assert capsys.readouterr().err == "postsuper: Deleted: 0 messages\n"


def test_expire_and_release(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """-f: what was on hold is so no longer, and that is said and counted."""
    one, two = home.put(State.HOLD), home.put(State.DEFERRED)
    assert postsuper.main(["-f", one, "-f", two, "-f", "strange_name"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"postsuper: {one}: expired",
        f"postsuper: {one}: released from hold",
        f"postsuper: {two}: expired",
        "postsuper: Force-expired: 2 messages",
        "postsuper: Released from hold: 1 message",
    ]
    assert home.ids(State.HOLD) == []


def test_hold_release_requeue_expire(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Each act and its words."""
    one = home.put(State.DEFERRED)
    assert postsuper.main(["-h", one]) == 0 and home.ids(State.HOLD) == [one]
    assert postsuper.main(["-H", one]) == 0 and home.ids(State.DEFERRED) == [one]
    assert postsuper.main(["-e", one]) == 0
    assert postsuper.main(["-r", one]) == 0
    (new,) = home.ids(State.INCOMING)
    assert new != one and home.ids(State.DEFERRED) == []
    assert capsys.readouterr().err.splitlines() == [
        f"postsuper: {one}: placed on hold",
        "postsuper: Placed on hold: 1 message",
        f"postsuper: {one}: released from hold",
        "postsuper: Released from hold: 1 message",
        f"postsuper: {one}: expired",
        "postsuper: Force-expired: 1 message",
        f"postsuper: {one}: requeued",
        "postsuper: Requeued: 1 message",
    ]


def test_repair(home: Home) -> None:
    """-s and no option at all: directories are made, what never became whole is removed."""
    os.rmdir(home.queue.path_of("", State.CORRUPT))
    (Path(home.queue.path_of("00000000001", State.INCOMING))).write_bytes(b"")
    assert postsuper.main([]) == 0
    assert home.ids(State.CORRUPT) == [] and home.ids(State.INCOMING) == []


@pytest.mark.parametrize("arguments", [["-x"], ["-d"], ["-d", "ALL", "nosuchqueue"]])
def test_usage(home: Home, arguments: list[str]) -> None:
    """What cannot be understood does nothing."""
    one = home.put(State.DEFERRED)
    assert postsuper.main(arguments) == 1
    assert home.ids(State.DEFERRED) == [one]


def test_reserved_for_the_superuser(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither root nor the queue's owner: 1."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert postsuper.main(["-d", "ALL"]) == 1
    assert capsys.readouterr().err == (
        "postsuper: fatal: use of this command is reserved for the superuser\n"
    )


# ---------------------------------------------------------------- postcat


def shown(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> str:
    assert postcat.main(list(arguments)) == 0
    sys.stdout.flush()
    return capfdbinary.readouterr().out.decode()


def test_sections(home: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """All of a file, found by its id, with -q and without."""
    one = home.put(State.HOLD)
    text = shown(capfdbinary, "-q", one)
    assert text == shown(capfdbinary, one)
    assert text.startswith(f"*** ENVELOPE RECORDS hold/{one} ***\nmessage_size: ")
    assert "\nmessage_arrival_time: " in text and "\ncreate_time: " in text
    assert text.endswith(
        "\nsender: s@example.com\nnamed_attribute: client_name=unknown\n"
        "original_recipient: bob@example.org\nrecipient: bob@example.org\n"
        "original_recipient: carol@example.net\nrecipient: carol@example.net\n"
        f"*** MESSAGE CONTENTS hold/{one} ***\nSubject: hi\n\nhello\n"
        f"*** HEADER EXTRACTED hold/{one} ***\n*** MESSAGE FILE END hold/{one} ***\n"
    )


@pytest.mark.parametrize(
    ("option", "text"),
    [("-h", "Subject: hi\n"), ("-b", "\nhello\n"), ("-bh", "Subject: hi\n\nhello\n")],
)
def test_parts(home: Home, capfdbinary: pytest.CaptureFixture[bytes], option: str, text: str) -> None:
    """-h and -b show the content alone."""
    assert shown(capfdbinary, option, home.put(State.DEFERRED)) == text


def test_offsets_and_types(home: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """-o and -d stand before each line; -s leaves out what lies before."""
    one = home.put(State.DEFERRED)
    assert shown(capfdbinary, "-od", "-h", one) == "       46  78 Subject: hi\n"
    assert shown(capfdbinary, "-s", "59", "-bh", one) == "hello\n"


def test_a_file_by_its_path(home: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A name with a file is a file."""
    path = home.queue.path_of(home.put(State.HOLD), State.HOLD)
    assert f"*** ENVELOPE RECORDS {path} ***" in shown(capfdbinary, path)


def test_a_delivered_recipient(home: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """done_recipient, as Postfix names it."""
    one = home.put(State.DEFERRED)
    message = home.queue.open(one)
    message.append([["done", 0, "sent", "2.0.0", "ok", "local", ""]])
    message.close()
    text = shown(capfdbinary, one)
    assert "\ndone_recipient: bob@example.org\n" in text and "\nrecipient: carol@example.net\n" in text


def test_a_drop_file(home: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """What waits in maildrop can be looked at."""
    maildrop = home.queue.path_of("", State.MAILDROP)
    drop_file.write(
        maildrop, drop_file.encode([(b"sender", b"a"), (b"recipient", b"b")], b"Subject: x\n\ny\n")
    )
    (name,) = os.listdir(maildrop)
    text = shown(capfdbinary, name)
    assert "sender: a\nrecipient: b\n*** MESSAGE CONTENTS" in text and "Subject: x\n\ny\n" in text


@pytest.mark.parametrize("arguments", [["-q", "FFFFFFFFFFF"], ["FFFFFFFFFFF"], ["/nonexistent"], ["-Z"]])
def test_what_is_not_there_is_1(home: Home, arguments: list[str]) -> None:
    """Unknown ids, files and options."""
    assert postcat.main(arguments) == 1


def test_damage_is_one_line(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is none of ours."""
    (tmp_path / "x").write_bytes(b"mailqueue nonsense" * 10)
    assert postcat.main([str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_no_queue_file(tmp_path: Path, home: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Of an empty file nothing is said, of another one that it is none; an id is a word."""
    for content, said in (
        (b"", b""),
        (b"\x00\x01other", b"postcat: warning: x: input is not a valid queue file\n"),
    ):
        (tmp_path / "x").write_bytes(content)
        with contextlib.chdir(tmp_path):
            assert postcat.main(["x"]) == 0
        assert capfdbinary.readouterr() == (b"", said)
    for name, problem in (("../x", b"bad mail queue ID: ../x"), ("xx", b"open queue file xx: No such file")):
        assert postcat.main(["-q", name]) == 1
        assert problem in capfdbinary.readouterr().err
    assert postcat.main(["-q"]) == 0
