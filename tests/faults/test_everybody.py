"""One mbox, and everybody at it: our deliveries, IMAP, POP3, procmail, mutt and mail. RELIABILITY F28 to F30.

Each message has an id. What was acknowledged and not deleted is there, once; nothing else is; and
whenever somebody looks, under the lock, the file parses.
"""

from __future__ import annotations

import contextlib
import imaplib
import mailbox
import os
import poplib
import pty
import random
import re
import select
import signal
import smtplib
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.store import locking
from mailserver.store.mbox_open import open_mailbox
from tests.end_to_end.server import Server, running, wait_for

ID = re.compile(r"^X-Test-Id: (\S+)$", re.MULTILINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "home", "mbox") as server:
        yield server


def message(name: str) -> str:
    fields = "From: carol@example.net\nTo: alice@example.org\nDate: Tue, 24 Nov 2026 02:22:04 +0000\n"
    return f"{fields}Message-ID: <{name}@t>\nX-Test-Id: {name}\nSubject: {name}\n\nFrom {name}\nbody\n"


def imap(server: Server) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=60)
    client.login("alice", server.passwords["alice"])
    client.select("INBOX")
    return client


def pop3(server: Server) -> poplib.POP3:
    client = poplib.POP3("127.0.0.1", server.ports["pop3"], timeout=60)
    client.user("alice")
    client.pass_(server.passwords["alice"])
    return client


def ids_in(path: Path) -> list[str]:
    """The ids of the messages in the mbox, read under its lock; it must parse."""
    with locking.shared(str(path), lambda: open_mailbox(str(path), os.O_RDONLY)) as descriptor:
        content = os.pread(descriptor, 1 << 26, 0)
    assert content == b"" or content.startswith(b"From ")
    assert content == b"" or content.endswith(b"\n\n")
    copy = path.with_name("copy")
    copy.write_bytes(content)
    found = [message["X-Test-Id"] for message in mailbox.mbox(copy)]
    copy.unlink()
    return [each for each in found if each is not None]


def procmail(server: Server, name: str) -> None:
    """procmail has delivered the message."""
    recipe = server.directory.parent / "procmailrc"
    if not recipe.exists():
        recipe.write_text(f"MAILDIR={server.directory}\nLOCKSLEEP=1\nDEFAULT={server.inbox('alice')}\n")
        recipe.chmod(0o600)
    text = "From carol@example.net  Tue Nov 24 02:22:04 2026\n" + message(name)
    subprocess.run(["procmail", "-m", str(recipe)], input=text.encode(), check=True, timeout=60)


@pytest.mark.needs("procmail")
def test_others_append_during_a_pop3_session(server: Server) -> None:
    """F28: DELE 1 and QUIT remove that one message; the twenty that came meanwhile stay."""
    before = ids_in(server.inbox("alice"))
    total = len(mailbox.mbox(server.inbox("alice")))
    session = pop3(server)
    for number in range(20):
        procmail(server, f"p{number}")
    session.dele(1)
    session.quit()
    assert Counter(ids_in(server.inbox("alice"))) == Counter([*before, *(f"p{n}" for n in range(20))])
    assert len(mailbox.mbox(server.inbox("alice"))) == total + 19


def test_expunge_during_a_pop3_session(server: Server) -> None:
    """F29: both in one process; what IMAP expunged is gone, what POP3 deletes too, the rest stays."""
    client = imap(server)
    for name in ("a", "b", "c"):
        client.append("INBOX", "", "", message(name).replace("\n", "\r\n").encode())
    total = int(client.select("INBOX")[1][0] or b"0")
    session = pop3(server)
    client.store(str(total - 2), "+FLAGS", "(\\Deleted)")
    client.expunge()
    session.dele(total)
    with contextlib.suppress(poplib.error_proto):  # it may say that not all could be removed
        session.quit()
    client.noop()
    left = ids_in(server.inbox("alice"))
    assert "b" in left and "a" not in left and "c" not in left
    client.logout()


class Crowd:
    """Programs that all work on alice's mbox until the time is up; who put what, who deleted what."""

    def __init__(self, server: Server, seconds: float, chance: random.Random, partner: str) -> None:
        self.server = server
        self.path = server.inbox("alice")
        self.put: set[str] = set()
        self.deleted: set[str] = set()
        self.doubtful: set[str] = set()  # told to a program that may have met a lock
        self.failures: list[str] = []
        self.samples = 0
        self._end = time.monotonic() + seconds
        self._chance = chance
        self._partner = partner
        self._lock = threading.Lock()

    def run(self) -> None:
        """All of them have ended."""
        work: dict[str, tuple[Callable[[int], None], ...]] = {
            "procmail": (self.imap, self.pop3, self.procmail),
            "mutt": (self.imap_append, self.procmail, self.mutt),
            "bsd-mailx": (self.imap_append, self.mailx),
        }
        everybody = (self.smtp, self.sample, *work[self._partner])
        threads = [threading.Thread(target=self._guarded, args=(each,)) for each in everybody]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def delete_alone(self) -> None:
        """With nobody else about, what the partner is told to delete is gone: it does what it is told."""
        before = set(ids_in(self.path))
        victim = sorted(self.put & before - self.deleted)[0]
        (self.mutt if self._partner == "mutt" else self.mailx)(0, victim)
        self.put.discard(victim)
        assert set(ids_in(self.path)) == before - {victim}

    def _guarded(self, work: Callable[[int], None]) -> None:
        number = 0
        while time.monotonic() < self._end:
            number += 1
            try:
                work(number)
            except Exception as error:
                self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")

    def _remember(self, where: set[str], *names: str) -> None:
        with self._lock:
            where.update(names)

    def _victim(self) -> str | None:
        """A message that is still thought to be there."""
        with self._lock:
            left = sorted(self.put - self.deleted - self.doubtful)
            return self._chance.choice(left) if len(left) > 10 else None

    def smtp(self, number: int) -> None:
        name = f"smtp{number:05}"
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=60) as client:
            client.sendmail("carol@example.net", ["alice@example.org"], message(name))
            self._remember(self.put, name)

    def procmail(self, number: int) -> None:
        procmail(self.server, f"procmail{number:05}")
        self._remember(self.put, f"procmail{number:05}")

    def imap_append(self, number: int) -> None:
        client = imap(self.server)
        self._append(client, number)
        client.logout()

    def _append(self, client: imaplib.IMAP4, number: int) -> None:
        name = f"imap{number:05}"
        assert client.append("INBOX", "", "", message(name).replace("\n", "\r\n").encode())[0] == "OK"
        self._remember(self.put, name)

    def imap(self, number: int) -> None:
        client = imap(self.server)
        self._append(client, number)
        uids = client.uid("SEARCH", "ALL")[1][0].split()
        if len(uids) > 10:
            uid = self._chance.choice(uids).decode()
            rows = client.uid("FETCH", uid, "(BODY.PEEK[HEADER])")[1]
            client.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")
            self._expect_gone(rows, client.uid("EXPUNGE", uid)[0] == "OK")
        client.logout()

    def _expect_gone(self, rows: list[object], is_certain: bool) -> None:
        for row in rows:
            found = ID.search(row[1].decode().replace("\r\n", "\n")) if isinstance(row, tuple) else None
            if found:
                self._remember(self.deleted if is_certain else self.doubtful, found[1])

    def pop3(self, number: int) -> None:
        session = pop3(self.server)
        total = session.stat()[0]
        if total > 10:
            chosen = self._chance.randrange(1, total + 1)
            head = b"\n".join(session.top(chosen, 0)[1]).decode()
            session.dele(chosen)
            found = ID.search(head)
            if found:
                self._remember(self.doubtful, found[1])
            session.quit()
            if found:
                self._remember(self.deleted, found[1])
        else:
            session.quit()

    def mutt(self, number: int, victim: str | None = None) -> None:
        victim = victim or self._victim()
        if victim is None:
            return
        self._remember(self.doubtful, victim)
        settings = ("move=no", "quit=yes", "delete=yes", "save_empty=yes", "timeout=1", "folder=~")
        words = [word for setting in settings for word in ("-e", f"set {setting}")]
        words = ["mutt", "-n", "-F", "/dev/null", *words, "-f", str(self.path)]
        # typed when it shows its index: waiting keys would say yes to "Lock count exceeded, remove lock?"
        # It does not quit where mail came meanwhile: hence again.
        on_a_terminal(words, self.server.directory, f"D~i{victim}@t\rqqqqq".encode(), 8, cue=b"Mutt: ")

    def mailx(self, number: int, victim: str | None = None) -> None:
        victim = victim or self._victim()
        if victim is None:
            return
        self._remember(self.doubtful, victim)
        # not with -f: then it locks nothing, and loses the mail that comes meanwhile
        typed = f"delete /{victim}\nquit\n".encode()
        on_a_terminal(["bsd-mailx", "-n", "-N"], self.server.directory, typed, 90, MAIL=str(self.path))

    def sample(self, number: int) -> None:
        found = ids_in(self.path)
        twice = [name for name, count in Counter(found).items() if count > 1]
        assert not twice, twice
        self.samples += 1
        time.sleep(0.05)


def on_a_terminal(
    words: list[str], home: Path, typed: bytes, patience: float = 30, cue: bytes = b"", **variables: str
) -> bytes:
    """What the program shows on a terminal of its own; killed where it does not end."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(home)
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C"}
        environment.update(variables)
        os.execvpe(words[0], words, environment)
    shown, end = b"", time.monotonic() + patience
    while time.monotonic() < end:
        if typed and cue in shown:
            os.write(terminal, typed)
            typed = b""
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                block = os.read(terminal, 65536)
            except OSError:
                break
            if not block:
                break
            shown += block
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown


@pytest.mark.timeout(400)
@pytest.mark.needs("procmail", "mutt", "bsd-mailx")
@pytest.mark.parametrize("partner", ["procmail", "mutt", "bsd-mailx"])
def test_everybody_at_once(
    server: Server, partner: str, chance: random.Random, thorough: bool, verdict: Callable[[str], None]
) -> None:
    """F30, F35: the multiset of ids is what was put less what was deleted. imaptest is not in Debian 12.

    mail(1) and mutt have crowds of their own: while they are open others may append, no more. What is
    expunged meanwhile, by whomever, does harm: mail(1) writes its own copy on quit, and what lies beyond its
    old end; mutt takes a file of the old size for the old one, and one with a `From ` at the old end for one
    that was appended to. And mail(1) blocks with procmail: one holds the dotlock and waits for fcntl, the
    other the reverse.
    """
    crowd = Crowd(server, 60 if thorough else 5, chance, partner)
    crowd.run()
    sure = crowd.put - crowd.deleted - crowd.doubtful
    # a mail program may have kept the lock for longer than a delivery waits: what was deferred is tried now
    server.command("queue", "flush")
    wait_for(lambda: sure <= set(ids_in(crowd.path)), "the deliveries")
    found = Counter(ids_in(crowd.path))
    assert not sure - set(found)
    assert not crowd.deleted & set(found), "came back"
    assert max(found.values()) == 1
    assert crowd.samples >= 3
    told = len(crowd.doubtful)
    gone = len(crowd.doubtful - set(found))
    if partner != "procmail":
        crowd.delete_alone()
    serious = [text for text in crowd.failures if "AssertionError" in text]
    assert not serious, serious
    verdict(
        f"{len(crowd.put)} put, {len(crowd.deleted)} deleted, {crowd.samples} samples, "
        f"{len(crowd.failures)} turned away"
        + (f", {gone} of {told} by {partner}" if partner != "procmail" else "")
    )
