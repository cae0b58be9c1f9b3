"""A day of mixed programs on one mbox, made short: random rounds of acts, partly at the same time.

Each message carries its id and a digest of its body. After each round the mbox holds exactly what was put
and not taken away, each once and as it was first seen; our IMAP shows the same under the same UIDs.
RELIABILITY P7, F28 to F30.
"""

from __future__ import annotations

import contextlib
import hashlib
import imaplib
import os
import poplib
import random
import re
import shlex
import smtplib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailserver.store import locking
from mailserver.store.mbox_open import open_mailbox
from tests.end_to_end.server import Server, running, wait_for
from tests.faults.test_everybody import imap, on_a_terminal, pop3
from tests.faults.test_interactive import Idler

_CHANGEABLE = re.compile(
    rb"^(?:Status|X-Status|X-Keywords|X-UID|X-IMAPbase|Content-Length|Lines):.*\n(?:[ \t].*\n)*",
    re.MULTILINE | re.IGNORECASE,
)
_FIELD = re.compile(rb"^X-Test-(Id|Digest): (\S+)\r?$", re.MULTILINE)
_TURNED_AWAY = (smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto, subprocess.SubprocessError)
_DOVECOT = "/usr/lib/dovecot/imap"
# With its lazy writes Dovecot takes flags back that anybody gives a message which it just saw for the
# first time: it writes X-UID and Status of its own when it closes, whatever the file says by then.
_DOVECOT_CONF = """\
base_dir = {root}/run
state_dir = {root}/run
default_internal_user = root
default_internal_group = root
default_login_user = root
first_valid_uid = 0
first_valid_gid = 0
mail_uid = {uid}
mail_gid = {gid}
log_path = {root}/dovecot.log
mail_location = mbox:{root}/mail:INBOX={inbox}:INDEX={root}/index
mbox_write_locks = dotlock fcntl
mbox_lazy_writes = no
"""


def digest_of(body: bytes) -> str:
    """Of a body as any program shows it: quoted or not, with LF or CRLF."""
    lines = re.sub(rb"(?m)^>+From ", b"From ", body.replace(b"\r\n", b"\n"))
    return hashlib.sha256(lines.rstrip(b"\n")).hexdigest()


def letter(name: str, other: bytes = b"From here on") -> bytes:
    """A message of up to some thousand octets that says its own digest, the same for the same name. LF."""
    chance = random.Random(name)
    lines = [other, b"", b"body"]
    for _ in range(chance.choice((0, 1, 5, 200))):
        lines.append(chance.choice((b"", other, b"Status: RO", b"word " * 9, "wörter".encode() * 5)))
    body = b"\n".join([*lines, b"end", b""])
    fields = (
        f"From: carol@example.net\nTo: alice@example.org\nDate: Tue, 24 Nov 2026 02:22:04 +0000\n"
        f"Message-ID: <{name}@t>\nX-Test-Id: {name}\nX-Test-Digest: {digest_of(body)}\nSubject: {name}\n\n"
    )
    return fields.encode() + body


def name_of(raw: bytes) -> str:
    """The id of a message, whose body must have the digest that it says."""
    said = {kind: value.decode() for kind, value in _FIELD.findall(raw.partition(b"\nend")[0])}
    assert len(said) == 2, f"no message of ours: {raw!r}"
    body = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)[1]
    assert digest_of(body) == said[b"Digest"], f"changed: {raw!r}"
    return said[b"Id"]


def parsed(content: bytes) -> dict[str, bytes]:
    """What of each message in an mbox never changes, by id; the mbox must be in order and hold none twice."""
    assert not content or (content.startswith(b"From ") and content.endswith(b"\n\n")), content[-300:]
    found: dict[str, bytes] = {}
    for raw in re.split(rb"(?m)^From .*\n", content)[1:]:
        name = name_of(raw)
        assert name not in found, f"{name} is there twice"
        fields, _, body = raw.partition(b"\n\n")
        found[name] = _CHANGEABLE.sub(b"", fields + b"\n") + b"\n" + body.rstrip(b"\n")
    return found


def dovecot(root: Path, inbox: Path) -> str | None:
    """The command whose standard input and output speak IMAP on the mbox, or None where it cannot run.

    It refuses to be root; so in a namespace of its own it is somebody else who owns the same files.
    """
    (root / "run").mkdir(parents=True)
    configuration = root / "dovecot.conf"
    words = ["env", f"HOME={root}", "USER=alice", _DOVECOT, "-c", str(configuration)]
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        uid = gid = 1000
        words = ["unshare", "--user", f"--map-user={uid}", f"--map-group={gid}", *words]
    configuration.write_text(_DOVECOT_CONF.format(root=root, inbox=inbox, uid=uid, gid=gid))
    done = subprocess.run(words, input=b"a LOGOUT\r\n", capture_output=True, timeout=60)
    return f"{shlex.join(words)} 2>>{configuration}.log" if b"a OK" in done.stdout else None


@dataclass
class Model:
    """What is known of the messages."""

    there: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)  # asked of a program that may have met a lock
    gone: set[str] = field(default_factory=set)
    stable: dict[str, bytes] = field(default_factory=dict)  # as first seen
    uids: dict[str, int] = field(default_factory=dict)
    flagged: set[str] = field(default_factory=set)
    saved: set[str] = field(default_factory=set)  # in our folder Saved
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str) -> None:
        with self.lock:
            self.there.add(name)

    def taken(self, name: str, is_certain: bool) -> None:
        with self.lock:
            self.there.discard(name)
            (self.gone if is_certain else self.doubtful).add(name)
            if is_certain:
                self.doubtful.discard(name)


class Day:
    """The acts. Each is told one message that no other act of its round touches."""

    def __init__(self, server: Server, chance: random.Random, root: Path) -> None:
        self.server = server
        self.chance = chance
        self.path = server.inbox("alice")
        self.home = root / "user"
        self.home.mkdir()
        self.model = Model()
        self.failures: list[str] = []
        self.turned_away = 0
        self.samples = 0
        self.rounds = 0
        self.dovecot_command = dovecot(root / "dovecot", self.path)
        self._count = 0
        self._recipe = root / "procmailrc"
        self._recipe.write_text(f"MAILDIR={self.home}\nLOCKSLEEP=1\nDEFAULT={self.path}\n")
        self._recipe.chmod(0o600)
        client = imap(server)
        client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
        client.expunge()
        client.create("Saved")
        self.validity = client.response("UIDVALIDITY")[1]
        client.logout()
        self.idler = Idler(server)

    # --- who puts

    def smtp(self, name: str) -> None:
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=60) as client:
            client.sendmail("carol@example.net", ["alice@example.org"], letter(name))
        self.model.put(name)

    def append(self, name: str) -> None:
        client = imap(self.server)
        text = letter(name).replace(b"\n", b"\r\n")
        assert client.append("INBOX", "", "", text)[0] == "OK"
        self.model.put(name)
        client.logout()

    def procmail(self, name: str) -> None:
        text = b"From carol@example.net  Tue Nov 24 02:22:04 2026\n" + letter(name)
        subprocess.run(["procmail", "-m", str(self._recipe)], input=text, check=True, timeout=90)
        self.model.put(name)

    def formail(self, name: str) -> None:
        """As shell scripts do it: the dotlock, which says no process, and no other lock."""
        path = shlex.quote(str(self.path))
        line = f"lockfile -1 -r 60 {path}.lock && formail >>{path} && rm -f {path}.lock"
        subprocess.run(["sh", "-c", line], input=letter(name), check=True, timeout=90)
        self.model.put(name)

    # --- who changes

    def expunge(self, name: str) -> None:
        client = imap(self.server)
        if uid := self._uid(client, name):
            client.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")
            self._dawdle(name)
            self.model.taken(name, is_certain=False)
            assert client.uid("EXPUNGE", uid)[0] == "OK"
            self.model.taken(name, is_certain=True)
        client.logout()

    def flag(self, name: str) -> None:
        client = imap(self.server)
        if uid := self._uid(client, name):
            words = random.Random(name).choice(("\\Flagged", "\\Flagged \\Seen", "\\Flagged Work"))
            assert client.uid("STORE", uid, "+FLAGS", f"({words})")[0] == "OK"
            self.model.flagged.add(name)
        client.logout()

    def copy(self, name: str) -> None:
        client = imap(self.server)
        uid = self._uid(client, name)
        if uid and name not in self.model.saved:
            assert client.uid("COPY", uid, "Saved")[0] == "OK"
            self.model.saved.add(name)
        client.logout()

    def move(self, name: str) -> None:
        client = imap(self.server)
        uid = self._uid(client, name)
        if uid and name not in self.model.saved:
            assert client.uid("MOVE", uid, "Saved")[0] == "OK"
            self.model.taken(name, is_certain=True)
            self.model.saved.add(name)
        client.logout()

    @staticmethod
    def _dawdle(name: str) -> None:
        """Its user does nothing for a moment, the same one for the same message."""
        time.sleep(random.Random(name).choice((0, 0, 0.1, 0.4)))

    @staticmethod
    def _uid(client: imaplib.IMAP4, name: str) -> str:
        rows = client.uid("SEARCH", "HEADER", "X-Test-Id", name)[1]
        return str(rows[0].decode()) if rows and rows[0] else ""

    def pop3(self, name: str) -> None:
        session = pop3(self.server)
        for number in range(session.stat()[0], 0, -1):
            if f"X-Test-Id: {name}".encode() in session.top(number, 0)[1]:
                assert name_of(b"\r\n".join(session.retr(number)[1])) == name
                session.dele(number)
                self.model.taken(name, is_certain=False)
                self._dawdle(name)
                session.quit()
                self.model.taken(name, is_certain=True)
                return
        session.quit()

    def dovecot(self, name: str) -> None:
        client = self._dovecot()
        if uid := self._uid(client, name):
            self.model.taken(name, is_certain=False)
            client.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")
            self._dawdle(name)
            client.uid("EXPUNGE", uid)
        client.logout()

    def dovecot_flag(self, name: str) -> None:
        client = self._dovecot()
        if uid := self._uid(client, name):
            assert client.uid("STORE", uid, "+FLAGS.SILENT", "(\\Flagged)")[0] == "OK"
            self._dawdle(name)
            client.close()
            self.model.flagged.add(name)
        client.logout()

    def dovecot_append(self, name: str) -> None:
        """Without lines that begin `From `: it quotes none, and s-nail takes each for a message."""
        client = self._dovecot()
        text = letter(name, b"Once more").replace(b"\n", b"\r\n")
        assert client.append("INBOX", "", "", text)[0] == "OK"
        self.model.put(name)
        client.logout()

    def _dovecot(self) -> imaplib.IMAP4:
        assert self.dovecot_command is not None
        client = imaplib.IMAP4_stream(self.dovecot_command)
        client.select("INBOX")
        return client

    # --- who keeps a copy of its own and writes it back when it quits

    def mutt(self, name: str) -> None:
        self.model.taken(name, is_certain=False)
        settings = ("move=no", "quit=yes", "delete=yes", "save_empty=yes", "folder=~", "wait_key=no")
        words = [word for setting in settings for word in ("-e", f"set {setting}")]
        words = ["mutt", "-n", "-F", "/dev/null", *words, "-f", str(self.path)]
        on_a_terminal(words, self.home, f"D~i{name}@t\r!sleep 0.4\rq".encode(), 20, cue=b"Mutt: ")

    def bsd_mailx(self, name: str) -> None:
        # not with -f: then it locks nothing, and loses the mail that comes meanwhile
        self._mail(name, ["bsd-mailx", "-n", "-N"])

    def s_nail(self, name: str) -> None:
        self._mail(name, ["s-nail", "-:/", "-Snoheader"])

    def _mail(self, name: str, words: list[str]) -> None:
        """The message is deleted, or read and so moved to ~/mbox."""
        self.model.taken(name, is_certain=False)
        act = random.Random(name).choice((b"delete", b"type", b"touch"))
        typed = b"%s /%s\n!sleep 0.4\nquit\n" % (act, name.encode())
        on_a_terminal(words, self.home, typed, 60, MAIL=str(self.path), USER="alice", PAGER="cat")

    # --- the day

    def round(self) -> None:
        """Some acts at the same time, of programs that can live beside each other; then everything is right.

        While mail(1) or mutt is open others may append, no more: what is expunged meanwhile they harm, by
        whomever. mutt may take a file that has grown for one that was only appended to, and so mangle it.
        And procmail and bsd-mailx block each other: each waits for what the other holds.
        """
        self.rounds += 1
        putting: list[Callable[[str], None]] = [self.smtp, self.append, self.formail]
        if self.chance.random() < 0.4:
            acts = [self.chance.choice((self.bsd_mailx, self.s_nail, self.mutt))]
        else:
            putting.append(self.procmail)
            changing = [self.expunge, self.flag, self.copy, self.move, self.pop3]
            if self.dovecot_command is not None:
                changing += [self.dovecot, self.dovecot_flag]
                putting.append(self.dovecot_append)
            acts = self.chance.choices(changing, k=self.chance.randrange(1, 7))
        if len(self.model.there) < 10:
            acts = []
        victims = self.chance.sample(sorted(self.model.there), len(acts))
        pairs = list(zip(acts, victims, strict=True))
        for act in self.chance.choices(putting, k=self.chance.randrange(1, 7)):
            self._count += 1
            pairs.append((act, f"{act.__name__}{self._count:05}"))
        self.chance.shuffle(pairs)
        print(f"round {self.rounds}: {[(act.__name__, name) for act, name in pairs]}")
        threads = [threading.Thread(target=self._guarded, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
            time.sleep(self.chance.choice((0, 0.01, 0.05, 0.2)))
        while any(thread.is_alive() for thread in threads):
            self.look()
            time.sleep(0.1)
        assert not self.failures, self.failures
        self.verify(f"after round {self.rounds}")

    def _guarded(self, act: Callable[[str], None], name: str) -> None:
        try:
            act(name)
        except _TURNED_AWAY as error:
            self.turned_away += 1
            self.model.doubtful.add(name)
            print(f"turned away: {act.__name__} {name}: {type(error).__name__}: {error}")
        except Exception as error:
            self.failures.append(f"{act.__name__} {name}: {type(error).__name__}: {error}")

    def look(self) -> dict[str, bytes]:
        """The mbox, read under its lock, parses, and what is known in it is as it was first seen."""
        with locking.shared(str(self.path), lambda: open_mailbox(str(self.path), os.O_RDONLY)) as descriptor:
            content = os.pread(descriptor, 1 << 26, 0)
        found = parsed(content)
        for name, stable in found.items():
            first = self.model.stable.setdefault(name, stable)
            assert stable == first, f"{name} was {first!r}, is {stable!r}"
        self.samples += 1
        return found

    def _flagged_in_file(self) -> set[str]:
        messages = re.split(rb"(?m)^From .*\n", self.path.read_bytes())[1:]
        return {name_of(raw) for raw in messages if re.search(rb"(?m)^X-Status: \w*F", raw)}

    def verify(self, when: str) -> None:
        """The mbox holds what the model says, and our IMAP shows it under the UIDs known."""
        model = self.model
        if not model.there <= set(self.look()):
            self.server.command("queue", "flush")  # what met a lock is deferred
            wait_for(lambda: model.there <= set(self.look()), f"{model.there - set(self.look())} {when}")
        found = set(self.look())
        for name in sorted(model.doubtful):
            (model.there if name in found else model.gone).add(name)
        model.doubtful.clear()
        model.gone -= model.there
        assert found == model.there, (found - model.there, model.there - found, when)
        kept = self.home / "mbox"
        read = set(parsed(kept.read_bytes())) if kept.exists() else set()
        assert read <= model.gone, when
        self._verify_imap(when)

    def _verify_imap(self, when: str) -> None:
        model = self.model
        client = imap(self.server)
        assert client.response("UIDVALIDITY")[1] == self.validity, when
        uids: dict[str, int] = {}
        flagged = set()
        for row in client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")[1]:
            if isinstance(row, tuple):
                name = name_of(row[1])
                assert name not in uids, when
                uids[name] = int(row[0].split(b"UID ")[1].split()[0].rstrip(b")"))
                if b"\\Flagged" in row[0]:
                    flagged.add(name)
        # what Dovecot flags in place while the file grows, our IMAP sees later (store.mbox)
        flagged |= self._flagged_in_file()
        assert uids.keys() == model.there, when
        assert len(set(uids.values())) == len(uids)
        for name, uid in uids.items():
            assert model.uids.setdefault(name, uid) == uid, f"{name}: {model.uids[name]}, {uid}: {when}"
        assert len(set(model.uids.values())) == len(model.uids), f"a UID was given twice {when}"
        assert model.flagged & model.there <= flagged, (model.flagged & model.there - flagged, when)
        client.select("Saved")
        saved = [
            name_of(row[1])
            for row in client.uid("FETCH", "1:*", "(BODY.PEEK[])")[1]
            if isinstance(row, tuple)
        ]
        assert sorted(saved) == sorted(model.saved), when
        client.logout()
        self._verify_idler(len(uids), when)

    def _verify_idler(self, count: int, when: str) -> None:
        """The session that idles all day knows how many there are."""
        self.idler.done()
        self.idler.say(b"n NOOP")
        self.idler.until(b"n OK")
        self.idler.say(b"s UID SEARCH ALL")
        answer = next(line for line in self.idler.until(b"s OK") if line.startswith(b"* SEARCH"))
        assert len(answer.split()) - 2 == count, when
        self.idler.say(b"c IDLE")
        self.idler.until(b"+ ")


@pytest.fixture
def day(tmp_path: Path, chance: random.Random) -> Iterator[Day]:
    with running(tmp_path / "home", "mbox") as server:
        yield Day(server, chance, tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.needs("procmail", "formail", "lockfile", "mutt", "bsd-mailx", "s-nail", "dovecot")
def test_mixed_programs(day: Day, thorough: bool, verdict: Callable[[str], None]) -> None:
    """No message is lost, doubled, changed, or moved to another UID, whoever works beside whom."""
    end = time.monotonic() + float(os.environ.get("FAULTS_SECONDS") or (240 if thorough else 8))
    while time.monotonic() < end or day.rounds < 3:
        day.round()
    assert "Traceback" not in day.server.log_text()
    with contextlib.suppress(OSError):
        day.idler.close()
    verdict(
        f"{day.rounds} rounds, {len(day.model.uids)} messages, {day.samples} samples, "
        f"{day.turned_away} turned away{'' if day.dovecot_command else ', without Dovecot'}"
    )
