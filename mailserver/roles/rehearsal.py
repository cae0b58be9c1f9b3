"""Two sessions that the zygote serves to itself before it forks the first host.

What every session needs is there afterwards: modules imported, code specialised, tables and patterns
made. A host that is forked later shares it with all others, and need not do it again.

The rehearsal has a mailbox of its own in a directory of root's, and a configuration of its own: no path, no
command and no account of the administrator's is touched, and no octet comes from elsewhere. What is in it
matters little: the commands are those that clients begin with.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from mailserver.accounts.account import Account
from mailserver.accounts.codec import account_message
from mailserver.config.config import Config
from mailserver.config.syntax import Setting
from mailserver.maillog import ListLog
from mailserver.rights import messages
from mailserver.rights.fresh_reactor import fresh_reactor
from mailserver.rights.handover import adopt, frame
from mailserver.rights.session_host import SessionHost
from mailserver.roles.hosting import Hosting
from mailserver.roles.parts import Parts
from mailserver.threads import WorkerThreads

LONGEST: Final = 30.0  # seconds
_THREADS: Final = 2
_OWN: Final = {"account_sources": "system", "acl": "vfile", "myhostname": "localhost"}
_PEER: Final = {
    "address": "127.0.0.1", "port": 1, "local_address": "127.0.0.1", "local_port": 1,
    "is_tls": True, "is_secure": True,
}  # fmt: skip
_IMAP: Final = {"tag": "1", "session": "rehearsal", "method": "PLAIN", "octets_in": 0, "octets_out": 0}
_POP3: Final = {"session": "rehearsal", "method": "PLAIN", "utf8": False, "peer": _PEER}
_MESSAGE: Final = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Mon, 6 Jan 2025 10:00:00 +0100\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHello.\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Hello.</p>\r\n--b--\r\n"
)
_APPEND: Final = b"APPEND INBOX (\\Flagged) {%d+}\r\n%b" % (len(_MESSAGE), _MESSAGE)
_IMAP_COMMANDS: Final = (
    b"CAPABILITY", b"ID NIL", b"NAMESPACE", b"ENABLE CONDSTORE", b'LIST "" "*"', b'LSUB "" "*"',
    _APPEND, _APPEND,
    b"STATUS INBOX (MESSAGES UNSEEN UIDNEXT)", b"SELECT INBOX",
    b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
    b"UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (From To Subject Date)])", b"UID FETCH 1 BODY[]",
    b"UID SEARCH UNSEEN", b"UID STORE 1 +FLAGS (\\Deleted)", b"UID COPY 1 Sent", b"NOOP", b"EXPUNGE",
    b"IDLE\r\nDONE", b"CLOSE", b"SELECT Sent", b"LOGOUT",
)  # fmt: skip
_POP3_COMMANDS: Final = (b"STAT", b"UIDL", b"LIST", b"RETR 1", b"QUIT")


def rehearse(config: Config, directory: str) -> Sequence[tuple[str, str]]:
    """An IMAP and a POP3 session have been served, and nothing is left of them; what they logged.

    The mailbox is of the kind that accounts have here. `directory` is made and removed; its parent is
    root's. Afterwards the process has one thread and a reactor that has stopped, for `fresh_reactor` to
    replace. *Blocking.* Raises TimeoutError, OSError, and whatever a session may raise.
    """
    os.mkdir(directory, 0o700)
    try:
        return _Rehearsal(config, directory).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Rehearsal:
    def __init__(self, config: Config, directory: str) -> None:
        usual = Account("rehearsal", os.geteuid(), os.getegid(), directory)
        kind = Parts(config, ListLog()).store.layout_for(usual).inbox_kind
        inbox = (
            f"{directory}/Mail" if kind.value == "maildir" else f"{directory}/mail:INBOX={directory}/inbox"
        )
        account = Account(usual.name, usual.uid, usual.gid, directory, mail=f"{kind.value}:{inbox}")
        self._whose, self._account = account, account_message(account)
        values = {**_OWN, "state_directory": f"{directory}/state"}
        settings = {name: Setting(name, value, "rehearsal") for name, value in values.items()}
        self._config = Config(config.directory, settings, host=config.host)

    def run(self) -> Sequence[tuple[str, str]]:
        reactor = self._reactor = fresh_reactor()
        log = ListLog()
        threads = WorkerThreads(reactor, _THREADS, "mail")
        hosting = Hosting(self._config, log, self._whose, reactor, threads)
        self._zygote, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        SessionHost(reactor, control, hosting.build, log, reactor.stop)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(hosting.stop()))
        reactor.callWhenRunning(hosting.start)
        reactor.callWhenRunning(self._imap)
        deadline = reactor.callLater(LONGEST, reactor.stop)
        try:
            reactor.run(installSignalHandlers=False)
        finally:
            self._zygote.close()
            threads.stop()
        if not deadline.active():
            raise TimeoutError("the sessions do not end")
        return log.lines

    def _imap(self) -> None:
        commands = (b"%d %b\r\n" % numbered for numbered in enumerate(_IMAP_COMMANDS, 2))
        self._serve("imap", _IMAP | _PEER, commands, self._pop3)

    def _pop3(self) -> None:
        commands = (command + b"\r\n" for command in _POP3_COMMANDS)
        self._serve("pop3", _POP3, commands, self._zygote.close)  # which ends the host

    def _serve(
        self,
        service: str,
        preamble: Mapping[str, Any],
        commands: Iterator[bytes],
        ended: Callable[[], object],
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            messages.send(self._zygote, {"account": self._account}, (theirs.fileno(),))
        adopt(self._reactor, ours.detach(), _Client(frame(service, preamble, b""), commands, ended))


class _Client(Protocol):
    """Says its commands, the next one whenever something comes back."""

    transport: Any

    def __init__(self, first: bytes, commands: Iterator[bytes], ended: Callable[[], object]) -> None:
        self._first = first
        self._commands = commands
        self._ended = ended

    def connectionMade(self) -> None:
        """The front's frame comes first."""
        self.transport.write(self._first)

    def dataReceived(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self.transport.write(next(self._commands, b""))

    def connectionLost(self, reason: Failure = Failure(RuntimeError("connectionLost"))) -> None:  # noqa: B008
        """The host has ended the session."""
        self._ended()
