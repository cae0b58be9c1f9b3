"""From the drop directory to the queue: pickup(8)."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailserver.delivery.content_checks import CheckTables
from mailserver.envelope import Address, Status
from mailserver.maillog import ListLog
from mailserver.message.qualify import Completion
from mailserver.queue import drop_file
from mailserver.queue.cleanup import CleanupRules
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.drop_file import Malformed
from mailserver.queue.file import QueueFile, load
from mailserver.queue.pickup import SCAN_SECONDS, Pickup
from mailserver.queue.progress import Progress
from mailserver.queue.submission import Submission, extracted, named
from mailserver.queue.taking import STALE_SECONDS, PickupRules, Taking, prepare
from mailserver.threads import Inline
from tests.queue.world import DictTable

NOW = 1_795_000_000.0
ME = pwd.getpwuid(os.getuid()).pw_name


class Place:
    """A queue with a drop directory, and whoever takes from it."""

    def __init__(self, base: Path, **rules: object) -> None:
        self.log = ListLog()
        self.queue = QueueDirectory(str(base), clock=lambda: NOW, warn=lambda text: None)
        self.queue.prepare()
        self.maildrop = base / "maildrop"
        self.rules = PickupRules("mx.example.org", completion=Completion(b"example.org"), **rules)  # type: ignore[arg-type]
        self.taking = Taking(self.queue, self.rules, self.log, lambda: NOW)

    def drop(self, *fields: tuple[bytes, bytes], content: bytes = b"Subject: hi\n\nhello\n") -> str:
        """A file as sendmail writes it; its name."""
        before = set(os.listdir(self.maildrop))
        drop_file.write(str(self.maildrop), drop_file.encode(list(fields), content))
        (name,) = set(os.listdir(self.maildrop)) - before
        return name

    def put(self, name: str, data: bytes, mode: int = drop_file.COMPLETE) -> str:
        """A file with those octets; its name."""
        (self.maildrop / name).write_bytes(data)
        (self.maildrop / name).chmod(mode)
        return name

    def take(self, *fields: tuple[bytes, bytes], content: bytes = b"Subject: hi\n\nhello\n") -> QueueFile:
        """The message that becomes of such a file."""
        message = self.taking.take(self.drop(*fields, content=content))
        assert message is not None, self.log.lines
        message.close()
        return message

    def text(self, message: QueueFile) -> bytes:
        """The content in the queue."""
        return Path(message.path).read_bytes()[message.content_offset :][: message.content_length]

    def set_aside(self) -> list[str]:
        """What lies in corrupt."""
        return os.listdir(self.maildrop.parent / "corrupt")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dates are the same wherever the tests run."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_message_is_in_the_queue_and_the_file_is_gone(place: Place) -> None:
    """Received: names the owner; Message-Id, Date and From are added; the log says what Postfix's says."""
    message = place.take(
        (b"sender", b"alice"),
        (b"full_name", b"Alice A"),
        (b"recipient", b"bob"),
        (b"recipient", b"c@example.net"),
    )
    queue_id, uid = message.queue_id, os.getuid()
    assert place.text(message).decode() == (
        f"Received: by mx.example.org (Postfix, from userid {uid})\n"
        f"\tid {queue_id}; Wed, 18 Nov 2026 11:06:40 +0000 (UTC)\n"
        "Subject: hi\n"
        f"Message-Id: <20261118110640.{queue_id}@mx.example.org>\n"
        "Date: Wed, 18 Nov 2026 11:06:40 +0000 (UTC)\n"
        "From: Alice A <alice@example.org>\n"
        "\nhello\n"
    )
    envelope = message.accepted.envelope
    assert envelope.sender == Address("alice", "example.org")
    assert [str(each.address) for each in envelope.recipients] == ["bob@example.org", "c@example.net"]
    assert [each.original for each in envelope.recipients] == ["bob", "c@example.net"]
    assert envelope.client.uid == uid
    assert os.listdir(place.maildrop) == []
    assert place.log.lines == [
        ("pickup", f"{queue_id}: uid={uid} from=<alice>"),
        ("cleanup", f"{queue_id}: message-id=<20261118110640.{queue_id}@mx.example.org>"),
    ]


def test_present_fields_are_kept_and_bcc_is_dropped(place: Place) -> None:
    """message_drop_headers; a From: of the user's own stays."""
    message = place.take(
        (b"recipient", b"bob"), content=b"From: me@x\nDate: d\nMessage-Id: <m>\nBcc: eve\nTo: bob\n\nx\n"
    )
    header = place.text(message).split(b"\n\n")[0]
    assert b"Bcc" not in header and header.endswith(
        b"From: me@x\nDate: d\nMessage-Id: <m>\nTo: bob@example.org"
    )


@pytest.mark.parametrize(
    ("text", "sender"), [(b"", None), (b"<>", None), (b"a@b.c", "a@b.c"), (b"x y z", ME)]
)
def test_senders(place: Place, text: bytes, sender: str | None) -> None:
    """-f '' and -f '<>' are the null sender; what is no address is the file's owner."""
    message = place.take((b"sender", text), (b"recipient", b"bob"))
    found = message.accepted.envelope.sender
    expected = f"{ME}@example.org" if sender == ME else sender
    assert (None if found is None else str(found)) == expected


def test_no_sender_is_the_owner(place: Place) -> None:
    """Identity comes from the file system."""
    assert str(place.take((b"recipient", b"bob")).accepted.envelope.sender) == f"{ME}@example.org"


def test_recipients_from_the_header(place: Place) -> None:
    """-t: To, Cc and Bcc, added to those of the command line, each once."""
    content = (
        b"To: Bob <bob@x.org>, alice\nCC: g: carol@x.org, bob@x.org;\nBcc:\n dave@x.org\n"
        b"Subject: To: eve\n\nTo: no\n"
    )
    message = place.take((b"extract", b"yes"), (b"recipient", b"alice"), content=content)
    found = [str(each.address) for each in message.accepted.envelope.recipients]
    assert found == ["alice@example.org", "bob@x.org", "carol@x.org", "dave@x.org"]
    assert b"dave" not in place.text(message)


def test_a_resent_message_has_its_own_recipients() -> None:
    """RFC 5322 §3.6.6: only Resent- fields count where there are any."""
    assert list(extracted(b"To: a@x\nResent-To: b@x\nResent-Bcc: c@x\n\n")) == ["b@x", "c@x"]
    assert list(extracted(b"To: undisclosed-recipients:;\n\n")) == []


def test_a_bad_recipient_bounces_later(place: Place) -> None:
    """ECOSYSTEM §7: it is accepted; nobody has such a name."""
    message = place.take((b"recipient", b"no such @ thing@@"), (b"recipient", b"\xff\xfe"))
    for recipient in message.accepted.envelope.recipients:
        assert recipient.address.domain == "example.org"


def test_notices_are_kept(place: Place) -> None:
    """RFC 3461: NOTIFY, RET, ENVID, and BODY."""
    fields = ((b"notify", b"FAILURE,DELAY"), (b"ret", b"HDRS"), (b"envid", b"e1"), (b"body", b"8BITMIME"))
    envelope = place.take((b"recipient", b"bob"), *fields).accepted.envelope
    assert envelope.recipients[0].notify == {"FAILURE", "DELAY"}
    assert (envelope.ret, envelope.envid, envelope.body) == ("HDRS", "e1", "8BITMIME")


def test_what_only_verifies_has_no_filter_and_no_copies(tmp_path: Path) -> None:
    """sendmail -bv: the recipients that were asked for, and no more; a trace of another kind is refused."""
    place = Place(tmp_path, content_filter="scan:[127.0.0.1]")
    fields = ((b"sender", b"alice"), (b"recipient", b"bob"), (b"trace", b"verify"))
    envelope = place.take(*fields).accepted.envelope
    assert (envelope.trace, envelope.content_filter, len(envelope.recipients)) == ("verify", "", 1)
    with pytest.raises(Malformed):
        Submission([(b"trace", b"x")], 1, "me", "x").envelope(b"")


def test_full_names_are_quoted() -> None:
    """RFC 5322 §3.2.3 and RFC 2047; no line break gets out."""
    address = Address("a", "b.c")
    assert named("Al B", address) == "Al B <a@b.c>"
    assert named('A. "B" (x)\n', address) == '"A. \\"B\\" (x)?" <a@b.c>'
    assert named("Mé", address) == "=?utf-8?b?TcOp?= <a@b.c>"
    assert named("", address) == "a@b.c"


# ---------------------------------------------------------------- what is not taken


def refused(place: Place, name: str, reason: str) -> None:
    """The file lies in corrupt, with a warning that names the reason."""
    assert place.taking.take(name) is None
    assert os.listdir(place.maildrop) == []
    assert len(place.set_aside()) == 1
    assert reason in place.log.lines[-1][1] and "warning" in place.log.lines[-1][1]
    assert not os.listdir(place.maildrop.parent / "incoming")


def test_damaged_files(tmp_path: Path) -> None:
    """A torn or changed file is no message."""
    good = drop_file.encode([(b"recipient", b"bob")], b"Subject: x\n\nbody\n")
    cases = [
        (good[:-1], "size"),
        (good + b"x", "size"),
        (good[:-2] + b"X\n", "checksum"),
        (b"", "first line"),
        (b"hello\n", "first line"),
        (drop_file.encode([], b"x\n\n"), "recipient"),
        (drop_file.encode([(b"extract", b"yes")], b"To:\n\nx\n"), "recipient"),
        (drop_file.encode([(b"recipient", b"a"), (b"notify", b"EVERYTHING")], b""), "notify"),
        (drop_file.encode([(b"recipient", b"a"), (b"envid", b"\r\nx")], b""), "envid"),
    ]
    for number, (data, reason) in enumerate(cases):
        place = Place(tmp_path / str(number))
        refused(place, place.put("A" * 16, data), reason)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.booleans())
def test_a_user_may_write_anything(place: Place, data: bytes, is_enveloped: bool) -> None:
    """B13: whatever stands in a file, the server goes on."""
    if is_enveloped:
        data = drop_file.encode([(b"recipient", b"bob"), (b"sender", data.replace(b"\0", b""))], data)
    message = place.taking.take(place.put("B" * 16, data))
    if message is not None:
        message.close()


def test_too_large_a_message(tmp_path: Path) -> None:
    """message_size_limit holds for whoever writes the file by hand, too."""
    place = Place(tmp_path, cleanup=CleanupRules(message_size_limit=100))
    refused(place, place.drop((b"recipient", b"bob"), content=b"\n" + b"x" * 200), "too big")


def test_who_may_not_submit(tmp_path: Path) -> None:
    """authorized_submit_users, by the owner of the file."""
    place = Place(tmp_path, may_submit=lambda uid: uid != os.getuid())
    refused(
        place, place.drop((b"recipient", b"bob")), f"User {ME}({os.getuid()}) is not allowed to submit mail"
    )


def test_links_and_devices_are_not_followed(place: Place, tmp_path: Path) -> None:
    """A user may link to a file of somebody else's, or make a FIFO that blocks its reader."""
    secret = tmp_path / "secret"
    secret.write_bytes(drop_file.encode([(b"recipient", b"bob")], b"x\n"))
    secret.chmod(drop_file.COMPLETE)
    os.symlink(secret, place.maildrop / "C1")
    os.link(secret, place.maildrop / "C2")
    os.mkfifo(place.maildrop / "C3", 0o740)
    os.mkdir(place.maildrop / "C4")
    assert sorted(place.taking.names()) == ["C1", "C2", "C3", "C4"]
    for name in place.taking.names():
        assert place.taking.take(name) is None
    assert os.listdir(place.maildrop) == []
    assert os.listdir(place.maildrop.parent / "incoming") == []


def test_nobody_writes_the_log(place: Place) -> None:
    """B24: names and senders are users' words; fail2ban reads the log."""
    forged = "x: NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 554"
    place.taking.take(place.put(forged, b"nonsense"))
    place.take((b"sender", f"<{forged}>".encode()), (b"recipient", b"bob"))
    place.take((b"sender", b"Name: NOQUEUE <a@b.c>"), (b"recipient", b"bob"))
    assert not [text for _, text in place.log.lines if "NOQUEUE" in text]
    assert "maildrop/(strange name): " in place.log.lines[0][1]
    assert place.log.lines[-2][1].endswith("from=<a@b.c>")


def test_a_bug_is_met_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that breaks us is left for the next start, with the others untouched."""
    name = place.drop((b"recipient", b"bob"))

    def broken(self: object, head: bytes) -> None:
        raise RuntimeError("bug")

    with monkeypatch.context() as patch:
        patch.setattr(Submission, "envelope", broken)
        with pytest.raises(RuntimeError):
            place.taking.take(name)
    assert place.taking.names() == [] and os.listdir(place.maildrop) == [name]
    restarted = Taking(place.queue, place.rules, place.log, lambda: NOW)
    assert restarted.names() == [name]


@pytest.mark.parametrize("octets", [70_000, 1 << 20, (1 << 20) + 7, 3_000_000])
def test_a_long_message_is_whole(place: Place, octets: int) -> None:
    """Content is taken in pieces; the header's part that was examined is not taken twice."""
    body = b"0123456789abcde\n" * (octets // 16)
    text = place.text(place.take((b"recipient", b"bob"), content=b"To: bob\n\n" + body))
    header, _, rest = text.partition(b"\n\n")
    assert rest == body and b"\nTo: bob@example.org\n" in header


def test_unfinished_files_wait_and_old_ones_go(place: Place) -> None:
    """Without its execute bit a file is being written; after a day nobody writes it any more."""
    place.put("D1", b"maildrop 1 ", drop_file.INCOMPLETE)
    os.utime(place.maildrop / "D1", (NOW, NOW))
    assert place.taking.names() == [] and place.taking.take("D1") is None
    os.utime(place.maildrop / "D1", (NOW - STALE_SECONDS - 1,) * 2)
    assert place.taking.names() == [] and os.listdir(place.maildrop) == []


def test_a_failing_disk_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays for the next scan."""
    name = place.drop((b"recipient", b"bob"))

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert place.taking.take(name) is None
    assert os.listdir(place.maildrop) == [name] and "will be tried again" in place.log.lines[-1][1]
    message = place.taking.take(name)
    assert message is not None
    message.close()


def test_a_file_that_cannot_be_removed_is_not_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be delivered at each scan."""
    name = place.drop((b"recipient", b"bob"))
    unlink = os.unlink

    def keep(path: str) -> None:
        if path.endswith(name):
            raise OSError(30, "Read-only file system")
        unlink(path)

    monkeypatch.setattr(os, "unlink", keep)
    assert place.taking.take(name) is None
    assert os.listdir(place.maildrop.parent / "incoming") == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["open", "pread", "fchmod", "fsync", "unlink"])
def test_killed_at_any_step(place: Place, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """P1: whatever the moment, the message is in the drop directory or in the queue, or in both."""
    name = place.drop((b"recipient", b"bob"))
    real = getattr(os, step)

    def killed(*arguments: object, **others: object) -> object:
        if step != "unlink" or str(arguments[0]).endswith(name):
            raise Killed
        return real(*arguments, **others)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, killed)
        with pytest.raises(Killed):
            place.taking.take(name)
    queue = QueueDirectory(place.queue.path, clock=lambda: NOW + 1)
    queued = queue.scan().incoming
    assert name in os.listdir(place.maildrop)
    assert len(queued) == (1 if step == "unlink" else 0)
    message = Taking(queue, place.rules, place.log, lambda: NOW).take(name)
    assert message is not None and place.text(message).endswith(b"\nhello\n")
    message.close()


def test_only_known_fields() -> None:
    """A later release may add fields; this one does not guess."""
    with pytest.raises(Malformed):
        drop_file.decode_envelope(b"uid=0\0")
    assert Submission([], 1, "me", "x").envelope(b"").recipients == ()


# ---------------------------------------------------------------- the service


class Reactor(Clock):
    """A clock that also takes readers; inotify's news are given by `see`."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        if reader in self.readers:  # as IReactorFDSet has it, once more is no error
            self.readers.remove(reader)

    def see(self) -> None:
        """What the kernel saw is told."""
        for reader in list(self.readers):
            reader.doRead()  # type: ignore[attr-defined]


def service(place: Place) -> tuple[Pickup, Reactor, list[QueueFile]]:
    taken: list[QueueFile] = []

    def accept(message: QueueFile) -> None:
        message.close()
        taken.append(message)

    reactor = Reactor()
    started = Pickup(reactor, Inline(), place.queue, place.rules, accept, place.log, lambda: NOW)
    return started, reactor, taken


def results(deferred: Deferred[None]) -> Sequence[object]:
    found: list[object] = []
    deferred.addBoth(found.append)
    return found


def test_what_waits_is_taken_at_the_start_and_what_comes_at_once(place: Place) -> None:
    """Mail that was dropped while the server was down is there first."""
    place.drop((b"recipient", b"bob"))
    pickup_, reactor, taken = service(place)
    pickup_.start()
    assert len(taken) == 1
    for _ in range(20):
        place.drop((b"recipient", b"bob"))
    reactor.see()
    assert len(taken) == 21 and os.listdir(place.maildrop) == []
    assert results(pickup_.stop()) == [None]
    assert reactor.readers == [] and reactor.getDelayedCalls() == []


def test_a_notice_that_was_lost_costs_a_minute(place: Place) -> None:
    """The directory is read periodically too."""
    pickup_, reactor, taken = service(place)
    pickup_.start()
    place.drop((b"recipient", b"bob"))
    assert taken == []
    reactor.advance(SCAN_SECONDS)
    assert len(taken) == 1
    pickup_.stop()


@pytest.mark.parametrize(("is_shared", "mode"), [(True, 0o3733), (False, 0o700)])
def test_modes_of_the_directory(tmp_path: Path, is_shared: bool, mode: int) -> None:
    """Many users: write and pass, not list; sticky; the group is inherited. One user: nobody else."""
    path = tmp_path / "maildrop"
    for _ in range(2):
        prepare(str(path), is_shared)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_header_checks_hold_for_local_mail_too(tmp_path: Path) -> None:
    """HOLD, REDIRECT, DISCARD; a table that cannot be read waits. The log is cleanup's."""
    rules = {
        "Subject: hold": "HOLD why",
        "Subject: gone": "DISCARD",
        "Subject: to": "REDIRECT carol@example.org",
    }
    table = DictTable(rules)
    checks = CheckTables(header_checks=(table,))
    place = Place(tmp_path, cleanup=CleanupRules(checks=checks))
    to = (b"recipient", b"bob")
    assert "/hold/" in place.take(to, content=b"Subject: hold\n\nx\n").path
    message = place.take(to, content=b"Subject: to\n\nx\n")
    assert [str(each.address) for each in message.accepted.envelope.recipients] == ["carol@example.org"]
    assert place.taking.take(place.drop(to, content=b"Subject: gone\n\nx\n")) is None
    assert os.listdir(place.maildrop) == [] and place.set_aside() == []
    assert any("discard: header Subject: gone from local; from=<" in line for _, line in place.log.lines)
    table.values = None
    assert place.taking.take(name := place.drop(to)) is None
    assert os.listdir(place.maildrop) == [name]


def test_what_is_rejected_goes_back_to_its_sender(tmp_path: Path) -> None:
    """cleanup(8): REJECT bounces local mail; its recipients have failed before anybody could deliver it."""
    table = DictTable({"Subject: bad": "REJECT no such thing"})
    place = Place(tmp_path, cleanup=CleanupRules(checks=CheckTables(header_checks=(table,))))
    fields = ((b"sender", b"alice"), (b"recipient", b"bob"), (b"recipient", b"c@example.net"))
    message = place.take(*fields, content=b"Subject: bad\n\nx\n")
    assert "/incoming/" in message.path and os.listdir(place.maildrop) == [] and place.set_aside() == []
    assert place.text(message).endswith(b"\nx\n") and b"Subject: bad\n" in place.text(message)
    with open(message.path, "rb") as file:
        loaded = load(message.queue_id, message.path, os.dup(file.fileno()), may_repair=False)
    progress = Progress(loaded.accepted, loaded.records)
    loaded.close()
    assert progress.open_leaves() == [] and progress.unreported(Status.FAILED) == [0, 1]
    assert [outcome.text for outcome in progress.outcomes if outcome] == ["no such thing"] * 2
    lines = [text for service, text in place.log.lines if service == "cleanup"]
    assert "reject: header Subject: bad from local; from=<alice@example.org> to=<bob@example.org>" in lines[0]
    bounced = [line for line in lines if "status=bounced (no such thing)" in line]
    assert (
        len(bounced) == 2 and "to=<bob@example.org>, relay=none" in bounced[0] and "dsn=5.7.1" in bounced[0]
    )


def test_a_crash_in_a_rejection_delivers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a full disk: what was committed is on hold until it has failed; the file is taken again."""
    table = DictTable({"Subject: bad": "REJECT"})
    place = Place(tmp_path, cleanup=CleanupRules(checks=CheckTables(header_checks=(table,))))

    def full(*unused: object, **also: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    name = place.drop((b"recipient", b"bob"), content=b"Subject: bad\n\nx\n")
    with monkeypatch.context() as patch:
        patch.setattr(QueueFile, "append", full)
        assert place.taking.take(name) is None
    assert os.listdir(place.maildrop) == [name]
    assert os.listdir(place.maildrop.parent / "incoming") == []
    assert os.listdir(place.maildrop.parent / "hold") == []
    again = place.taking.take(name)
    assert again is not None and "/incoming/" in again.path
    again.close()
