"""Records what a client says, as a transcript for `tests/transcripts/imap`.

    python -m tests.imapd.record 10143 >client-NAME.txt     # then let the client log in there: alice, secret
    python -m tests.imapd.record --help

INBOX has three messages. Each connection is a session of the transcript; what two stores may answer
differently stands as `...` or as a pattern. COMPRESS=DEFLATE is kept from the client, so that its words can
be read. Stop it with Ctrl-C: the transcript is written, to be looked through and given a first line that
names the client.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from mailserver.imapd.factory import ImapFactory
from mailserver.imapd.settings import ImapSettings
from mailserver.maillog import ListLog
from mailserver.store.contract import NewMessage
from mailserver.threads import Inline
from tests.imapd.harness import ALICE, PasswordIsSecret, message
from tests.store_memory import MemoryRegistry

reactor: Any = the_reactor
SUBJECTS = ("one", "two", "three")
_HIDDEN = b" COMPRESS=DEFLATE"
_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\r\n")
_VARIABLE = (
    (rb"(UIDVALIDITY |HIGHESTMODSEQ |MODSEQ \()\d+", rb"\1{\\d+}"),
    (rb'INTERNALDATE "[^"]*"', rb'INTERNALDATE "{[^"]*}"'),
)
_DIFFERENT = (
    b"* LIST ",
    b"* LSUB ",
    b"* STATUS ",
    b"* FLAGS ",
    b"* OK [",
    b"* CAPABILITY",
    b"* ID ",
    b"* NAMESPACE",
)


class Recorder(ProtocolWrapper):
    """One connection; everything goes into the factory's `said`."""

    number = 0

    def connectionMade(self) -> None:
        self.number = self.factory.connected()
        super().connectionMade()

    def write(self, data: bytes) -> None:
        data = data.replace(_HIDDEN, b"")
        self.factory.said.append(("S", self.number, data))
        super().write(data)

    def dataReceived(self, data: bytes) -> None:
        self.factory.said.append(("C", self.number, data))
        super().dataReceived(data)


class RecordingFactory(WrappingFactory):
    """The IMAP factory, overheard."""

    protocol = Recorder

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.said: list[tuple[str, int, bytes]] = []
        self._connections = 0

    def connected(self) -> int:
        """The number of the next connection, from 1."""
        self._connections += 1
        return self._connections


def transcript(said: list[tuple[str, int, bytes]]) -> str:
    """The dialogue in the form that `harness.play` reads."""
    lines = [f"M: {subject}" for subject in SUBJECTS]
    merged: list[tuple[str, int, bytes]] = []
    for side, number, data in said:
        if merged and merged[-1][:2] == (side, number):
            merged[-1] = (side, number, merged[-1][2] + data)
        else:
            merged.append((side, number, data))
    waiting = b""  # a command whose literal is being sent
    for side, number, data in merged:
        name = "" if number == 1 else str(number)
        if side == "C":
            waiting += data
            if _is_whole(waiting):
                lines += [f"C{name}: {line}" for line in _commands(waiting)]
                waiting = b""
        elif data != b"+ OK\r\n":
            lines += _answers(name, data)
    return "\n".join(lines) + "\n"


def _is_whole(data: bytes) -> bool:
    """Whether no literal is still to come."""
    position = 0
    while found := _LITERAL.search(data, position):
        position = found.end() + int(found[1])
    return position < len(data)


def _commands(data: bytes) -> list[str]:
    """The lines with each literal as `{{…}}`."""
    text, position = "", 0
    while found := _LITERAL.search(data, position):
        end = found.end() + int(found[1])
        literal = data[found.end() : end].decode("latin-1").encode("unicode_escape").decode()
        text += data[position : found.start()].decode("latin-1") + "{{" + literal + "}}"
        position = end
    return (text + data[position:].decode("latin-1")).removesuffix("\r\n").split("\r\n")


def _answers(name: str, data: bytes) -> list[str]:
    lines: list[str] = []
    for line in data.removesuffix(b"\r\n").split(b"\r\n"):
        if line.startswith(_DIFFERENT) and b"OK [CAPABILITY" not in line:
            shown = "..."
        elif line.startswith(b"* OK"):
            shown = "* OK {.*}"
        else:
            for pattern, replacement in _VARIABLE:
                line = re.sub(pattern, replacement, line)
            shown = re.sub(r"^(\S+ (?:OK|NO|BAD)) .*", r"\1 {.*}", line.decode("latin-1"))
        if shown != "..." or not lines or not lines[-1].endswith(": ..."):
            lines.append(f"S{name}: {shown}")
    return lines


def main() -> None:
    """Serves until Ctrl-C, then prints the transcript."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int, help="a free port on 127.0.0.1")
    port = parser.parse_args().port
    registry = MemoryRegistry()
    inbox = registry.open(ALICE).open("INBOX")
    inbox.append([NewMessage(message(subject)) for subject in SUBJECTS])
    factory = RecordingFactory(
        ImapFactory(ImapSettings(), PasswordIsSecret(), registry, Inline(), reactor, ListLog())
    )
    reactor.listenTCP(port, factory, interface="127.0.0.1")
    reactor.run()
    print(transcript(factory.said), end="")


if __name__ == "__main__":
    main()
