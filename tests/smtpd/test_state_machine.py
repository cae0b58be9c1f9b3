"""Random commands against a model of the session: RELIABILITY B4.

Invariants: content is invited only with an accepted MAIL and at least one accepted RCPT of *this*
transaction; exactly one reply to each command, in order, whatever the segments; what is queued is
what the model says, for the recipients of its own transaction.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.smtpd.harness import House

OTHERS = (
    "NOOP",
    "VRFY x",
    "HELP",
    "BOGUS",
    "",
    "AUTH PLAIN",
    "STARTTLS",
    "DATA x",
    "RCPT",
    "MAIL",
    "EXPN a",
    "\xff\xfe",
)
GOOD = {"alice@example.org", "bob@example.org", "any@relayed.example"}
RECIPIENTS = (*sorted(GOOD), "nobody@example.org", "x@other.test", "alice@", "")


class SmtpSession(RuleBasedStateMachine):
    """The model: whether MAIL was accepted, for whom, and what must have been queued."""

    @initialize(step=st.sampled_from([1, 3, 4096]))
    def connect(self, step: int) -> None:
        """A fresh server; commands arrive in pieces of `step` octets."""
        self.house = House(
            Path(tempfile.mkdtemp()),
            soft_error_limit=10_000,
            hard_error_limit=10_000,
            junk_command_limit=10_000,
        )
        self.client = self.house.connect()
        self.step = step
        self.has_sender = False
        self.has_chunks = False
        self.recipients: list[str] = []
        self.expected: list[tuple[list[str], bytes]] = []
        self.chunks = b""

    def teardown(self) -> None:
        """Open descriptors are given back."""
        for message in (getattr(self, "house", None) and self.house.accepted) or ():
            message.close()

    def forget(self) -> None:
        """The transaction is over."""
        self.has_sender = self.has_chunks = False
        self.recipients = []
        self.chunks = b""

    def say(self, data: bytes) -> str:
        """The one reply to the octets; its code."""
        said = "".join(
            self.client.send(data[start : start + self.step]) for start in range(0, len(data), self.step)
        )
        lines = said.splitlines()
        assert lines, data
        assert all(line[3:4] == "-" for line in lines[:-1]), said
        assert lines[-1][3:4] == " "
        return lines[-1][:3]

    @rule(verb=st.sampled_from(["HELO", "EHLO"]))
    def hello(self, verb: str) -> None:
        """A greeting forgets the transaction. RFC 5321 §4.1.4."""
        assert self.say(f"{verb} client.example\r\n".encode()) == "250"
        self.forget()

    @rule()
    def rset(self) -> None:
        """RFC 5321 §4.1.1.5."""
        assert self.say(b"RSET\r\n") == "250"
        self.forget()

    @rule(sender=st.sampled_from(["", "a@b", "alice@example.org", "bad@", "a@b> SIZE=99999999", "a@b> X=1"]))
    def mail(self, sender: str) -> None:
        """Once a transaction, with good syntax and size."""
        text = sender if ">" in sender else f"{sender}>"
        code = self.say(f"MAIL FROM:<{text}\r\n".encode())
        accepted = not self.has_sender and sender in ("", "a@b", "alice@example.org")
        assert (code == "250") is accepted
        self.has_sender = self.has_sender or accepted

    @rule(recipient=st.sampled_from(RECIPIENTS))
    def rcpt(self, recipient: str) -> None:
        """Only behind MAIL, before any chunk, and for those who get mail here."""
        code = self.say(f"RCPT TO:<{recipient}>\r\n".encode())
        accepted = self.has_sender and not self.has_chunks and recipient in GOOD
        assert (code == "250") is accepted
        if accepted:
            self.recipients.append(recipient)

    @rule(
        body=st.lists(st.sampled_from(["x", "..", "MAIL FROM:<e@v>", "QUIT", "RSET", "", ".x"]), max_size=4)
    )
    def data(self, body: list[str]) -> None:
        """Invited exactly when the invariant says so; what follows is content, never commands."""
        code = self.say(b"DATA\r\n")
        accepted = bool(self.has_sender and self.recipients and not self.has_chunks)
        assert (code == "354") is accepted
        if not accepted:
            return
        wire = "".join(f"{line}\r\n" for line in ["A: b", "", *body])
        assert self.say(f"{wire}.\r\n".encode()) == "250"
        content = "".join(f"{line.removeprefix('.')}\n" for line in ["A: b", "", *body])
        self.expected.append((self.recipients, content.encode()))
        self.forget()

    @rule(chunk=st.sampled_from([b"", b"A: b\r\n\r\n", b"QUIT\r\n", b".\r\n", b"x"]), is_last=st.booleans())
    def bdat(self, chunk: bytes, is_last: bool) -> None:
        """Chunks are swallowed where they are not welcome, and content where they are."""
        last = " LAST" if is_last else ""
        code = self.say(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
        accepted = bool(self.has_sender and self.recipients)
        assert (code == "250") is accepted
        if not accepted:
            if self.has_sender:
                self.rset()
            return
        self.has_chunks = True
        self.chunks += chunk
        if is_last:
            self.expected.append((self.recipients, b""))
            self.forget()

    @rule(command=st.sampled_from(OTHERS))
    def other(self, command: str) -> None:
        """Everything else gets one reply and changes nothing."""
        self.say(f"{command}\r\n".encode("latin-1"))

    @invariant()
    def queued_as_expected(self) -> None:
        """Each accepted message has the recipients of its own transaction, and its content."""
        if not hasattr(self, "house"):
            return
        accepted = self.house.accepted
        assert len(accepted) == len(self.expected)
        for message, (recipients, content) in zip(accepted, self.expected, strict=True):
            assert [each.original for each in message.accepted.envelope.recipients] == recipients
            if content:
                assert message.read_content().endswith(b"\n" + content)
        assert not self.client.is_closed


TestSmtpSession = SmtpSession.TestCase
TestSmtpSession.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
