r"""Commands of several sessions whose blocking work ends in any order, NOTIFY between them.

The work of all sessions waits in one heap; the test does it piece by piece, in any order, while further
commands come in. Each model client checks every response against the command that is at work for it:
EXPUNGE only where it may be (RFC 3501 §7.4.1), UIDs that agree with what it was told.
"""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailserver.imapd.settings import ImapSettings
from tests.imapd.harness import Client, Server, message
from tests.imapd.test_sessions import Model
from tests.imapd.test_slow_store import SlowThreads

COMMANDS = (
    b"NOOP", b"EXPUNGE", b"SEARCH UNDELETED", b"FETCH 1:* (UID FLAGS)", b"STORE 1 +FLAGS (\\Deleted)",
    b"UID STORE 1:* -FLAGS.SILENT (\\Deleted)", b"MOVE 1 other", b"UID FETCH 2:* (BODY[TEXT])",
        b"COPY 1 INBOX",
    b"UID MOVE 3:4 other", b"SORT (SUBJECT) UTF-8 ALL", b"APPEND INBOX {5+}\r\na: b\n",
    b"UID SEARCH RETURN (UPDATE COUNT) DELETED", b"STATUS INBOX (MESSAGES)", b"CHECK",
)  # fmt: skip
_NEVER_EXPUNGE = (b"FETCH", b"STORE", b"SEARCH", b"SORT", b"COPY")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 2), st.sampled_from(COMMANDS)),
        st.tuples(st.just("work"), st.integers(0, 5), st.just(b"")),
        st.tuples(
            st.just("say"), st.integers(0, 2), st.sampled_from([b"STORE 1 +FLAGS (\\Deleted)", b"EXPUNGE"])
        ),
        st.tuples(st.just("deliver"), st.just(0), st.just(b"")),
    ),
    max_size=60,
)


class Pipelined(Model):
    """A model whose commands may wait for each other."""

    def __init__(self, client: Client, threads: SlowThreads, setup: bytes) -> None:
        self.client = client
        self.uids = []
        self.flags = {}
        self.count = 0
        self.notifies = b"NOTIFY" in setup
        self.with_vanished = b"QRESYNC" in setup
        self._pending: list[tuple[bytes, bytes]] = []
        self._rest = b""
        for command in (b"LOGIN alice secret", b"SELECT INBOX", b"FETCH 1:* (UID FLAGS)", setup):
            self.say(command)
            threads.work()
            self.hear()

    def say(self, command: bytes) -> None:
        """The command is sent, whatever is at work."""
        self.count += 1
        tag = b"t%d" % self.count
        self._pending.append((tag, command))
        self.client.send(tag + b" " + command)

    def hear(self) -> None:
        """Every line that has come is checked against the command at work."""
        self._rest += self.client.read()
        while b"\r\n" in self._rest:
            line, self._rest = self._rest.split(b"\r\n", 1)
            if self._pending and line.startswith(self._pending[0][0] + b" "):
                self._pending.pop(0)
                continue
            assert not re.match(rb"t\d+ ", line), (line, self._pending[:1])
            self.listen(line, self._may_expunge())

    def _may_expunge(self) -> bool:
        if self.notifies:
            return True  # RFC 5465 §5.3: such a client uses UIDs
        return bool(self._pending) and not self._pending[0][1].startswith(_NEVER_EXPUNGE)

    @property
    def is_answered(self) -> bool:
        """Whether nothing is at work for it."""
        return not self._pending


@settings(max_examples=200, deadline=None)
@given(STEPS)
@example(
    [("say", 0, b"STORE 1 +FLAGS (\\Deleted)"), ("work", 5, b""), ("say", 1, b"EXPUNGE"), ("work", 5, b""),
     ("say", 0, b"SEARCH UNDELETED"), ("say", 2, b"SORT (SUBJECT) UTF-8 ALL"), ("work", 5, b"")]
)  # fmt: skip
def test_every_order_of_work(steps: list[tuple[str, int, bytes]]) -> None:
    """All commands are answered in order, and in the end all sessions know what is there."""
    threads = SlowThreads()
    server = Server(ImapSettings(most_bad_commands=1000), threads=threads)
    server.store.create("other")
    inbox = server.store.inbox
    inbox.deliver(*[message(str(number)) for number in range(4)])
    inbox.refresh()
    setups = (b"NOOP", b"NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))", b"NOTIFY NONE")
    models = [Pipelined(server.connect(), threads, setup) for setup in setups]
    for what, number, command in steps:
        if what == "say":
            models[number].say(command)
        elif what == "deliver":
            inbox.deliver(message())
            inbox.refresh()
        elif number == 5:
            threads.work()
        elif threads.waiting:
            threads.waiting.pop(number % len(threads.waiting))()
        for model in models:
            model.hear()
    threads.work()
    for model in models:
        model.say(b"NOOP")
        threads.work()
        model.say(b"FETCH 1:* (UID FLAGS)")
        threads.work()
        model.hear()
        assert model.is_answered
        assert model.uids == list(inbox.uids)
        assert all(model.flags[uid] == inbox.messages[uid].flags for uid in inbox.uids)
