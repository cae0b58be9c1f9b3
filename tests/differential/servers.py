"""Debian's Dovecot and this server side by side, each on a maildir of its own with the same mail.

Dovecot's `imap` program runs alone, logged in, over pipes: no listener and no daemon. Ours runs
in this process over a transport in memory. Both offer `ask`: a command goes in, the answer up to
its tagged line comes out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mailserver.accounts.account import Account
from mailserver.store.layout import Layout, layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import Client, Server

IMAP = "/usr/lib/dovecot/imap"
ARRIVED = 1_000_000_000  # of the first message; each next a day later
_ANNOUNCED = re.compile(rb"\{([0-9]+)\}\r\n\Z")
_MAIL_USER = 8  # Debian's `mail`: Dovecot's imap refuses to run as root

_CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/run
mail_location = maildir:{home}/Maildir{layout}
mail_uid = {uid}
mail_gid = {uid}
first_valid_uid = 1
first_valid_gid = 1
ssl = no
namespace inbox {{
  inbox = yes
  separator = {separator}
  prefix = {prefix}
{mailboxes}}}
mail_attribute_dict = file:{home}/attributes
protocol imap {{
  imap_metadata = yes
  mail_plugins = quota imap_quota
}}
"""

_SPECIAL = "".join(
    f"  mailbox {name} {{\n    auto = subscribe\n    special_use = \\{name}\n  }}\n"
    for name in ("Archive", "Drafts", "Junk", "Sent", "Trash")
)


def fill(maildir: Path, messages: Mapping[str, bytes]) -> None:
    """The messages lie in the maildir as a delivery agent left them, LF line ends, in that order."""
    for folder in ("cur", "new", "tmp"):
        (maildir / folder).mkdir(parents=True)
    for index, content in enumerate(messages.values()):
        arrived = ARRIVED + 86_400 * index
        path = maildir / "new" / f"{arrived}.M1P{index}.host"
        path.write_bytes(content.replace(b"\r\n", b"\n"))
        os.utime(path, (arrived, arrived))


@contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory that Dovecot's user can reach: pytest closes its own whenever a run begins."""
    path = Path(tempfile.mkdtemp(prefix="mailserver-dovecot-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class DovecotEnded(Exception):
    """Dovecot's program has ended: 2.3 runs into an assertion of its own now and then (BINARY.SIZE)."""


class Dovecot:
    """Any number of sessions on one maildir. Ended with `close`."""

    def __init__(self, home: Path, messages: Mapping[str, bytes], prefix: str = "") -> None:
        """With a prefix the maildir is Maildir++, else has directories for its levels."""
        self._home = home
        self._uid = os.geteuid() or _MAIL_USER
        fill(home / "Maildir", messages)
        configuration = _CONFIGURATION.format(
            home=home, uid=self._uid, mailboxes=_SPECIAL, prefix=prefix, separator=prefix[-1:] or "/",
            layout="" if prefix else ":LAYOUT=fs",
        )  # fmt: skip
        (home / "dovecot.conf").write_text(configuration)
        if os.geteuid() == 0:
            self._hand_to_mail_user()
        self._sessions: dict[str, _DovecotSession] = {}

    def _hand_to_mail_user(self) -> None:
        for directory, _, files in os.walk(self._home):
            for name in ("", *files):
                os.chown(os.path.join(directory, name), self._uid, self._uid)

    def session(self, name: str) -> _DovecotSession:
        """The session of that name, begun where it was not."""
        if name in self._sessions and self._sessions[name].has_ended:
            self._sessions.pop(name).close()
        if name not in self._sessions:
            self._sessions[name] = _DovecotSession(self._home)
        return self._sessions[name]

    def close(self) -> None:
        """All sessions have ended."""
        for session in self._sessions.values():
            session.close()


class _DovecotSession:
    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [IMAP, "-c", str(home / "dovecot.conf")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env={"USER": "alice", "HOME": str(home), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        self._greeting = self._response()

    @property
    def has_ended(self) -> bool:
        """Whether the program is gone."""
        return self._process.poll() is not None

    def ask(self, command: bytes) -> list[bytes]:
        """The responses to the command, the tagged one last, without their ends. Raises DovecotEnded."""
        assert self._process.stdin is not None
        tag = command.split(b" ", 1)[0] + b" "
        self._process.stdin.write(command + b"\r\n")
        responses = [self._response()]
        while not responses[-1].startswith(tag):
            responses.append(self._response())
        return responses

    def _response(self) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        response = self._line()
        while announced := _ANNOUNCED.search(response):
            octets = int(announced[1])
            while octets:
                piece = pipe.read(octets)
                response += piece
                octets -= len(piece)
            response += self._line()
        return response.removesuffix(b"\r\n")

    def _line(self) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            octet = pipe.read(1)
            if not octet:
                self._process.wait(10)
                raise DovecotEnded(bytes(line))
            line += octet
        return bytes(line)

    def close(self) -> None:
        """The program has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Session(Protocol):
    """What both servers offer."""

    def ask(self, command: bytes) -> list[bytes]:
        """The responses to the command, the tagged one last, without their ends."""


class Ours:
    """Any number of sessions on one maildir, like `Dovecot`."""

    def __init__(self, home: Path, messages: Mapping[str, bytes], prefix: str = "") -> None:
        fill(home / "Maildir", messages)

        def place(account: Account) -> Layout:
            if not prefix:
                return layout_for(account, f"maildir:{home}/Maildir:LAYOUT=fs")
            found = layout_for(account, f"maildir:{home}/Maildir")
            return replace(found, separator=prefix[-1], prefix=f"{prefix[:-1]}/")

        self._registry = FileStoreRegistry(place, str(home / "state"), "host.example")
        self._server = Server(registry=self._registry)
        self._sessions: dict[str, _OurSession] = {}

    def session(self, name: str) -> _OurSession:
        """The session of that name, begun where it was not."""
        if name not in self._sessions:
            self._sessions[name] = _OurSession(self._server.log_in())
        return self._sessions[name]

    def close(self) -> None:
        """All sessions have ended."""
        for session in self._sessions.values():
            session.client.transport.close()
        self._registry.shut()


class _OurSession:
    def __init__(self, client: Client) -> None:
        self.client = client

    def ask(self, command: bytes) -> list[bytes]:
        """The responses to the command, the tagged one last, without their ends."""
        tag = command.split(b" ", 1)[0] + b" "
        said = self.client.ask(command)
        responses = []
        while said:
            end = self._end(said)
            responses.append(said[:end].removesuffix(b"\r\n"))
            said = said[end:]
        assert responses and responses[-1].startswith(tag), responses[-1:]
        return responses

    @staticmethod
    def _end(said: bytes) -> int:
        end = said.index(b"\r\n") + 2
        while announced := _ANNOUNCED.search(said, max(0, end - 30), end):
            end = said.index(b"\r\n", end + int(announced[1])) + 2
        return end
