"""Random POP3 commands against a model of the session, over a real maildrop: RELIABILITY B4.

The model knows what RFC 1939 says: which state the session is in, what it may see, what is marked.
Invariants: one answer to each command whatever the segments; numbers and octets hold for the
session, whatever is delivered meanwhile; only QUIT deletes, and exactly what was marked.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mailserver.pop3d.settings import Pop3Settings
from tests.pop3d.dialogue import Dialogue, unstuffed
from tests.store.harness import MaildirHarness, MboxHarness

LENIENT = Pop3Settings(
    most_login_failures=10_000, most_bad_commands_before_login=10_000, most_bad_commands=10_000
)
BODIES = ("", "x", ".", "..x\r\n.", "\r\n.\r\nQUIT", "+OK", "From y")
NUMBERS = st.sampled_from(["1", "2", "3", "5", "0", "-1", "x", "", "1 1", "99999999999"])
ANYWHERE_WRONG = ("XTND", "", "APOP a b", "\xff\xfe", "LAST", "RETR1", "AUTH NONE")


class Pop3Session(RuleBasedStateMachine):
    """`stored` is what INBOX must hold; `seen` what this session was shown; `marked` numbers of it."""

    @initialize(step=st.sampled_from([1, 3, 4096]), harness=st.sampled_from([MaildirHarness, MboxHarness]))
    def begin(self, step: int, harness: type[MaildirHarness] | type[MboxHarness]) -> None:
        """A mailbox with two messages, nobody connected."""
        self.root = Path(tempfile.mkdtemp())
        self.files = harness(self.root)
        self.step = step
        self.count = 0
        self.stored: list[bytes] = []
        self.seen: list[bytes] | None = None
        self.marked: set[int] = set()
        self.has_user = False
        self.ids: dict[bytes, bytes] = {}
        self.deliver("")
        self.deliver(".")
        self.hang_up_and_connect()

    def teardown(self) -> None:
        """Nothing stays behind."""
        if hasattr(self, "root"):
            if self.dialogue.server is not None:
                self.dialogue.hang_up()
            self.files.registry.shut()
            shutil.rmtree(self.root)

    @rule(body=st.sampled_from(BODIES))
    def deliver(self, body: str) -> None:
        """Another program appends a message: no session under way learns of it."""
        self.count += 1
        content = f"Subject: {self.count}\r\n\r\n{body}\r\n".encode()
        self.files.deliver(content)
        self.stored.append(content)

    def hang_up_and_connect(self) -> None:
        self.dialogue = Dialogue(settings=LENIENT, registry=self.files.registry)
        assert self.dialogue.connect().startswith(b"+OK ")
        self.seen, self.marked, self.has_user = None, set(), False

    @rule()
    def vanish(self) -> None:
        """A connection that ends without QUIT deletes nothing. RFC 1939 §6."""
        self.dialogue.hang_up()
        self.hang_up_and_connect()

    def say(self, command: str) -> bytes:
        """The whole answer to a command that comes in pieces."""
        octets = command.encode("latin-1") + b"\r\n"
        said = b"".join(
            self.dialogue.say(octets[start : start + self.step]) for start in range(0, len(octets), self.step)
        )
        assert said.startswith((b"+OK", b"-ERR ")) and said.endswith(b"\r\n"), (command, said)
        return said

    def one_line(self, command: str) -> bytes:
        said = self.say(command)
        assert said.count(b"\r\n") == 1, (command, said)
        return said

    def is_ok(self, command: str) -> bool:
        return self.one_line(command).startswith(b"+OK")

    def number_of(self, text: str) -> int:
        """The message that the text names, 0 for none."""
        known = self.seen is not None and text.isdigit() and 1 <= int(text) <= len(self.seen)
        return int(text) if known and int(text) not in self.marked else 0

    def content(self, number: int) -> bytes:
        assert self.seen is not None
        return self.seen[number - 1]

    @rule(name=st.sampled_from(["alice", "bob", ""]))
    def user(self, name: str) -> None:
        """A name, before the login only."""
        accepted = self.seen is None and name != ""
        assert self.is_ok(f"USER {name}") is accepted
        if self.seen is None:
            self.name = name if accepted else getattr(self, "name", "")
            self.has_user = self.has_user or accepted

    @rule(password=st.sampled_from(["secret", "secret", "wrong", ""]))
    def password(self, password: str) -> None:
        """Right behind USER alone; the name is used up."""
        accepted = self.seen is None and self.has_user and (self.name, password) == ("alice", "secret")
        assert self.is_ok(f"PASS {password}") is accepted
        if self.seen is None:
            self.has_user = False
        if accepted:
            self.seen = list(self.stored)

    @rule()
    def log_in(self) -> None:
        """The short way in, so that half of the walk is behind the login."""
        if self.seen is None:
            self.user("alice")
            self.password("secret")

    @rule()
    def stat(self) -> None:
        """Messages and octets that are not marked."""
        said = self.one_line("STAT")
        assert said.startswith(b"+OK") is (self.seen is not None)
        if self.seen is not None:
            left = [len(text) for number, text in enumerate(self.seen, 1) if number not in self.marked]
            assert said == b"+OK %d %d\r\n" % (len(left), sum(left))

    @rule(verb=st.sampled_from(["LIST", "UIDL"]), argument=NUMBERS)
    def listing(self, verb: str, argument: str) -> None:
        """Of one or of all; ids are unique, and stay the message's own in every session."""
        said = self.say(f"{verb} {argument}".rstrip())
        if self.seen is None:
            assert said.startswith(b"-ERR")
        elif argument:
            number = self.number_of(argument)
            assert said.startswith(b"+OK %d " % number if number else b"-ERR")
        else:
            lines = said.split(b"\r\n")[1:-2]
            assert said.endswith(b"\r\n.\r\n")
            left = [number for number in range(1, len(self.seen) + 1) if number not in self.marked]
            assert [int(line.split()[0]) for line in lines] == left
            for number, value in ((int(line.split()[0]), line.split()[1]) for line in lines):
                if verb == "LIST":
                    assert int(value) == len(self.content(number))
                else:
                    assert self.ids.setdefault(self.content(number), value) == value
            assert len(set(self.ids.values())) == len(self.ids)

    @rule(argument=NUMBERS)
    def retr(self, argument: str) -> None:
        """The octets that were delivered, dots and all."""
        said, number = self.say(f"RETR {argument}"), self.number_of(argument)
        assert said.startswith(b"+OK") is (number > 0)
        if number:
            assert unstuffed(said) == self.content(number)

    @rule(argument=NUMBERS, lines=st.integers(0, 3))
    def top(self, argument: str, lines: int) -> None:
        """The header and so many lines. RFC 1939 §7."""
        said, number = self.say(f"TOP {argument} {lines}"), self.number_of(argument)
        assert said.startswith(b"+OK") is (number > 0)
        if number:
            header, _, body = self.content(number).partition(b"\r\n\r\n")
            wanted = b"".join(body.splitlines(keepends=True)[:lines])
            assert unstuffed(said) == header + b"\r\n\r\n" + wanted

    @rule(argument=NUMBERS)
    def dele(self, argument: str) -> None:
        """Marks a message once."""
        number = self.number_of(argument)
        assert self.is_ok(f"DELE {argument}") is (number > 0)
        self.marked |= {number} if number else set()

    @rule()
    def rset(self) -> None:
        """Takes the marks back."""
        assert self.is_ok("RSET") is (self.seen is not None)
        self.marked = set()

    @rule()
    def noop(self) -> None:
        """Only where there is a maildrop."""
        assert self.is_ok("NOOP") is (self.seen is not None)

    @rule()
    def capa(self) -> None:
        """In every state, and it changes nothing. RFC 2449 §5."""
        said = self.say("CAPA")
        assert said.startswith(b"+OK") and said.endswith(b"\r\n.\r\n")
        assert (b"\r\nUSER\r\n" in said) is (self.seen is None)

    @rule(command=st.sampled_from(ANYWHERE_WRONG))
    def wrong(self, command: str) -> None:
        """One -ERR, and the session goes on as it was."""
        assert not self.is_ok(command)

    @precondition(lambda self: self.seen is not None)
    @rule()
    def second_session(self) -> None:
        """The maildrop is held by one session at a time. RFC 1939 §8."""
        other = Dialogue(settings=LENIENT, registry=self.files.registry)
        other.connect()
        other.ask(b"USER alice")
        assert other.ask(b"PASS secret").startswith(b"-ERR [IN-USE]")
        other.hang_up()

    @rule()
    def quit(self) -> None:
        """UPDATE: what was marked is gone, and nothing else."""
        assert self.is_ok("QUIT")
        assert self.dialogue.wire.disconnecting
        if self.seen is not None:
            gone = [self.content(number) for number in self.marked]
            self.stored = [content for content in self.stored if content not in gone]
        self.dialogue.hang_up()
        self.hang_up_and_connect()

    @invariant()
    def nothing_is_lost(self) -> None:
        """INBOX holds what was delivered and not deleted by a QUIT, in order."""
        if not hasattr(self, "root"):
            return
        store = self.files.registry.open(self.files.account)
        inbox = store.open("INBOX")
        try:
            assert [inbox.read(uid) for uid in inbox.uids] == self.stored
        finally:
            store.close(inbox)
            self.files.registry.close(store)


TestPop3Session = Pop3Session.TestCase
TestPop3Session.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, print_blob=True)
