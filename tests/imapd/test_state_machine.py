r"""Random sessions over a real store against a model of RFC 3501's states. RELIABILITY B4.

The model: the state (§3), the mailboxes with what lies in them, the subscriptions. Invariants: one tagged
answer to each command, last, whatever the segments; a command does what its state lets it do and nothing
else; content and flags are those of the model after every session's end; a UID never means two messages.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mailserver.imapd.dispatch import HANDLERS, NEEDS_SELECTED
from mailserver.imapd.settings import ImapSettings
from tests.imapd.harness import Client, Server
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness

NAMES = (b"INBOX", b"one", b"two", b"three")
FLAGS = (b"\\Seen", b"\\Deleted", b"\\Flagged", b"key")
SPECIAL = {b"Archive", b"Drafts", b"Junk", b"Sent", b"Trash"}  # listed before anybody made them
BODIES = (b"x", b"a99 LOGOUT", b"{5}", b")", b"* 1 EXPUNGE", b"")
# Wrong in every state, and nothing happens.
NONSENSE = (
    b"BOGUS",
    b"",
    b"SELECT",
    b"FETCH 1",
    b"UID",
    b"UID BOGUS 1",
    b"APPEND one",
    b'LOGIN "x',
    b"LIST (",
)
_TAG = re.compile(rb"^z\d+ (OK|NO|BAD) ", re.MULTILINE)


@dataclass
class Message:
    """Content and flags; `uid` once it is known."""

    content: bytes
    flags: set[bytes]
    uid: int = 0


@dataclass
class Mailbox:
    """What lies in it, oldest first; `uidvalidity` once it is known."""

    messages: list[Message] = field(default_factory=list)
    uidvalidity: int = 0


class ImapSession(RuleBasedStateMachine):
    """One client; the state is not authenticated, authenticated, or selected."""

    names = st.sampled_from(NAMES)

    @initialize(
        store=st.sampled_from([MaildirHarness, MboxHarness]),
        step=st.sampled_from([1, 7, 4096]),
        starts_selected=st.booleans(),
    )
    def start(self, store: Callable[[Path], FileHarness], step: int, starts_selected: bool) -> None:
        """Commands arrive in pieces of `step` octets."""
        self.directory = Path(tempfile.mkdtemp())
        (self.directory / "home").mkdir()
        self.store = store(self.directory)
        limits = ImapSettings(most_bad_commands=10**6, most_bad_commands_before_login=10**6)
        self.server = Server(limits, self.store.registry)
        self.server.logins.accounts["alice"] = self.store.account
        self.step = step
        self.count = 0
        self.mailboxes: dict[bytes, Mailbox] = {b"INBOX": Mailbox()}
        self.subscribed = {b"INBOX"}
        self.meaning: dict[tuple[int, int], bytes] = {}
        self.connect()
        if starts_selected:
            self.login()
            for _ in range(2):
                self.append(b"INBOX", b"x", {b"\\Deleted"}, False)
            self.create(b"one")
            self.select(b"INBOX")

    def connect(self) -> None:
        """A new connection, not authenticated."""
        self.client: Client = self.server.connect()
        assert self.client.read().startswith(b"* OK ")
        self.is_logged_in = False
        self.selected: bytes | None = None
        self.may_write = False

    def teardown(self) -> None:
        """Another session finds all that the model has, and only that."""
        if not hasattr(self, "client"):
            return
        try:
            self.logout()
            self.login()
            self.list_all()
            for name in self.mailboxes:
                self.select(name, b"EXAMINE")
                self.look()
        finally:
            self.store.registry.shut()
            shutil.rmtree(self.directory)

    def say(self, command: bytes, expected: str) -> bytes:
        """What is answered; `expected` says which of OK, NO, BAD may be the end of it."""
        self.count += 1
        wire = b"z%d %b\r\n" % (self.count, command)
        for start in range(0, len(wire), self.step):
            self.client.feed(wire[start : start + self.step])
        said = self.client.read()
        tagged = _TAG.findall(said)
        assert len(tagged) == 1, (command, said)
        assert said.splitlines()[-1].startswith(b"z%d " % self.count), (command, said)
        assert tagged[0].decode() in expected.split("|"), (command, said)
        return said

    @property
    def box(self) -> Mailbox:
        """The selected mailbox."""
        assert self.selected is not None
        return self.mailboxes[self.selected]

    def by_state(self, works: bool) -> str:
        """The answer to a command for a state after the login that `works` there, or is refused."""
        return "BAD" if not self.is_logged_in else "OK" if works else "NO"

    # Not authenticated.

    @rule(password=st.sampled_from([b"secret", b"secret", b"wrong"]))
    def login(self, password: bytes = b"secret") -> None:
        """Once, with the right password."""
        if self.is_logged_in:
            self.say(b"LOGIN alice " + password, "BAD|NO")
        elif password == b"wrong":
            self.say(b"LOGIN alice wrong", "NO")
            self.client.transport.close()
            self.connect()
        else:
            self.say(b"LOGIN alice secret", "OK")
            self.is_logged_in = True

    @rule(command=st.sampled_from(sorted(HANDLERS)))
    def out_of_state(self, command: str) -> None:
        """Every command is refused before its state is reached."""
        if not self.is_logged_in and command != "NOOP":
            self.say(command.encode() + b" 1 one", "BAD")
        elif self.is_logged_in and self.selected is None and command in NEEDS_SELECTED:
            self.say(command.encode() + b" 1:* one", "BAD")
        if not self.client.is_open:
            assert not self.is_logged_in
            self.connect()

    @rule(command=st.sampled_from(NONSENSE))
    def nonsense(self, command: bytes) -> None:
        """One BAD, and the next command is read where it begins."""
        self.say(command, "BAD")
        if not self.client.is_open:  # too many of them
            self.connect()

    @rule(command=st.sampled_from([b"NOOP", b"CAPABILITY"]))
    def in_any_state(self, command: bytes) -> None:
        """Always well."""
        self.say(command, "OK")

    @rule()
    def logout(self) -> None:
        """BYE, then OK, then the end. Nothing is expunged. RFC 3501 §6.1.3."""
        said = self.say(b"LOGOUT", "OK")
        assert said.startswith(b"* BYE ") and not self.client.is_open
        self.connect()

    # Authenticated.

    @rule(name=names, verb=st.sampled_from([b"SELECT", b"SELECT", b"EXAMINE"]))
    def select(self, name: bytes, verb: bytes = b"SELECT") -> None:
        """Opens what is there; where that fails none is selected. RFC 3501 §6.3.1."""
        there = name in self.mailboxes
        said = self.say(b"%b %b" % (verb, name), self.by_state(there))
        if not self.is_logged_in:
            return
        self.selected = name if there else None
        self.may_write = verb == b"SELECT"
        if there:
            assert (b"[READ-WRITE]" if self.may_write else b"[READ-ONLY]") in said
            assert b"* %d EXISTS\r\n" % len(self.box.messages) in said
            validity = int(re.search(rb"\[UIDVALIDITY (\d+)\]", said)[1])  # type: ignore[index]
            assert self.box.uidvalidity in (0, validity)
            self.box.uidvalidity = validity
            self.look()

    def look(self) -> None:
        """What FETCH says of the selected mailbox is what the model has; no UID means two messages."""
        box = self.box
        if not box.messages:
            return
        said = self.say(b"UID FETCH 1:* (FLAGS BODY.PEEK[])", "OK")
        found = []
        for match in re.finditer(
            rb"\* (\d+) FETCH \(UID (\d+) FLAGS \(([^)]*)\) BODY\[\] \{(\d+)\}\r\n", said
        ):
            content = said[match.end() : match.end() + int(match[4])]
            found.append((int(match[1]), int(match[2]), set(match[3].split()) - {b"\\Recent"}, content))
        assert [(number, flags, content) for number, _, flags, content in found] == [
            (number, message.flags, message.content) for number, message in enumerate(box.messages, 1)
        ]
        uids = [uid for _, uid, _, _ in found]
        assert uids == sorted(set(uids))
        for message, uid in zip(box.messages, uids, strict=True):
            assert message.uid in (0, uid)
            message.uid = uid
            assert self.meaning.setdefault((box.uidvalidity, uid), message.content) == message.content

    @rule(name=names)
    def create(self, name: bytes) -> None:
        """What is not there yet."""
        new = name not in self.mailboxes
        self.say(b"CREATE " + name, self.by_state(new))
        if new and self.is_logged_in:
            self.mailboxes[name] = Mailbox()

    @rule(name=names)
    def delete(self, name: bytes) -> None:
        """With all that is in it; never INBOX. The subscription stays. RFC 3501 §6.3.4, §6.3.6."""
        if name == self.selected:
            self.unselect()
        works = name in self.mailboxes and name != b"INBOX"
        self.say(b"DELETE " + name, self.by_state(works))
        if works and self.is_logged_in:
            del self.mailboxes[name]

    @rule(name=names, new=names)
    def rename(self, name: bytes, new: bytes) -> None:
        """To a free name; INBOX's messages go and it stays. RFC 3501 §6.3.5."""
        if self.selected in (name, new):
            self.unselect()
        works = name in self.mailboxes and new not in self.mailboxes
        self.say(b"RENAME %b %b" % (name, new), self.by_state(works))
        if works and self.is_logged_in:
            moved = self.mailboxes.pop(name)
            self.mailboxes[new] = moved
            moved.uidvalidity = 0
            for message in moved.messages:
                message.uid = 0
            if name == b"INBOX":
                self.mailboxes[b"INBOX"] = Mailbox()
            if name in self.subscribed:
                self.subscribed = self.subscribed_now()

    def subscribed_now(self) -> set[bytes]:
        """Whether a subscription follows its mailbox is the server's choice."""
        return self.listed(b"LSUB") - SPECIAL

    @rule(name=names, verb=st.sampled_from([b"SUBSCRIBE", b"UNSUBSCRIBE"]))
    def subscribe(self, name: bytes, verb: bytes) -> None:
        """The list is what was asked for."""
        said = self.say(b"%b %b" % (verb, name), "OK|NO" if self.is_logged_in else "BAD")
        if re.search(rb"^z\d+ OK", said, re.MULTILINE):
            (self.subscribed.add if verb == b"SUBSCRIBE" else self.subscribed.discard)(name)

    def listed(self, verb: bytes) -> set[bytes]:
        """All names of LIST or LSUB."""
        said = self.say(verb + b' "" *', "OK")
        return set(re.findall(rb'^\* \w+ \([^)]*\) (?:"[^"]*"|NIL) "?([^"\r\n]+)"?\r$', said, re.MULTILINE))

    @rule()
    def list_all(self) -> None:
        """Every mailbox, every subscription, once."""
        if not self.is_logged_in:
            self.say(b'LIST "" *', "BAD")
            return
        assert self.listed(b"LIST") - SPECIAL == set(self.mailboxes)
        assert self.listed(b"LSUB") - SPECIAL == self.subscribed

    @rule(
        name=names, body=st.sampled_from(BODIES), flags=st.sets(st.sampled_from(FLAGS)), waits=st.booleans()
    )
    def append(self, name: bytes, body: bytes, flags: set[bytes], waits: bool) -> None:
        """The literal is content where the command is welcome, and never commands where it is not."""
        self.count += 1
        content = b"Message-ID: <%d@x>\r\n\r\n%b\r\n" % (self.count, body)
        there = name in self.mailboxes
        command = b"APPEND %b (%b) {%d%b}\r\n%b"
        if waits:  # a synchronizing literal that is refused is not sent
            self.client.feed(b"y APPEND %b (%b) {%d}\r\n" % (name, b" ".join(flags), len(content)))
            said = self.client.read()
            if said.startswith(b"y "):
                assert not (self.is_logged_in and there), said
                if not self.client.is_open:
                    self.connect()
                return
            assert said.startswith(b"+ "), said
            self.client.feed(content + b"\r\n")
            answer = self.client.read()
            assert (b"\r\ny OK " in b"\r\n" + answer) is (self.is_logged_in and there), answer
        else:
            line = command % (name, b" ".join(flags), len(content), b"+", content)
            self.say(line, self.by_state(there))
        if not self.client.is_open:
            self.connect()
        elif there and self.is_logged_in:
            self.mailboxes[name].messages.append(Message(content, set(flags)))

    @rule(name=names)
    def status(self, name: bytes) -> None:
        """Counts what is there."""
        box = self.mailboxes.get(name)
        said = self.say(b"STATUS %b (MESSAGES UNSEEN)" % name, self.by_state(box is not None))
        if box and self.is_logged_in:
            unseen = sum(b"\\Seen" not in message.flags for message in box.messages)
            assert b"(MESSAGES %d UNSEEN %d)" % (len(box.messages), unseen) in said

    # Selected.

    @rule(verb=st.sampled_from([b"CLOSE", b"UNSELECT"]))
    def unselect(self, verb: bytes = b"UNSELECT") -> None:
        r"""CLOSE expunges what is \Deleted, unless the mailbox is read-only; UNSELECT does not."""
        if self.selected is None:
            self.say(verb, "BAD")
            return
        self.say(verb, "OK")
        if verb == b"CLOSE" and self.may_write:
            self.forget_deleted()
        self.selected = None

    def forget_deleted(self) -> None:
        self.box.messages = [each for each in self.box.messages if b"\\Deleted" not in each.flags]

    @rule()
    def expunge(self) -> None:
        r"""What is \Deleted goes, in a mailbox that may be written."""
        if self.selected is None:
            self.say(b"EXPUNGE", "BAD")
        elif not self.may_write:
            self.say(b"EXPUNGE", "NO|BAD")
        else:
            self.say(b"EXPUNGE", "OK")
            self.forget_deleted()
            self.look()

    @rule(
        number=st.integers(1, 5),
        sign=st.sampled_from([b"", b"+", b"-"]),
        flags=st.sets(st.sampled_from(FLAGS)),
    )
    def store_flags(self, number: int, sign: bytes, flags: set[bytes]) -> None:
        """RFC 3501 §6.4.6."""
        command = b"STORE %d %bFLAGS (%b)" % (number, sign, b" ".join(flags))
        if self.selected is None:
            self.say(command, "BAD")
        elif number > len(self.box.messages):
            self.say(command, "BAD|NO")
        elif not self.may_write:
            self.say(command, "NO|BAD")
        else:
            self.say(command, "OK")
            message = self.box.messages[number - 1]
            kept = message.flags - flags if sign == b"-" else message.flags | flags
            message.flags = kept if sign else set(flags)
            self.look()

    @rule(number=st.integers(1, 5), name=names, verb=st.sampled_from([b"COPY", b"MOVE"]))
    def copy(self, number: int, name: bytes, verb: bytes) -> None:
        """RFC 3501 §6.4.7, RFC 6851: all or nothing."""
        command = b"%b %d %b" % (verb, number, name)
        if self.selected is None:
            self.say(command, "BAD")
            return
        works = number <= len(self.box.messages) and name in self.mailboxes
        if name == self.selected or (verb == b"MOVE" and not self.may_write):
            return
        self.say(command, "OK" if works else "NO|BAD")
        if works:
            message = self.box.messages[number - 1]
            self.mailboxes[name].messages.append(Message(message.content, set(message.flags)))
            if verb == b"MOVE":
                del self.box.messages[number - 1]
            self.look()


TestImapSession = ImapSession.TestCase
TestImapSession.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
