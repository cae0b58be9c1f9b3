"""What a POP3 client may do before it is logged in, and the login itself.

The protocol gives USER, PASS and AUTH, and takes a granted login or a refusal; whose password is right
is `Logins`' business. RFC 1939 §4 and §7, RFC 5034.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from mailserver.accounts.certificate_logins import Shown
from mailserver.accounts.login import Attempt, Granted, Logins, Peer, Refused, offered
from mailserver.accounts.sasl import Credentials, SaslProblem, by_scram, credentials, name_of
from mailserver.accounts.scram_dialogue import MECHANISMS as SCRAM
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.client_certificates import peer_certificates
from mailserver.pop3d.authentication import AskLine, in_base64, response
from mailserver.pop3d.record import ConnectionRecord
from mailserver.pop3d.settings import Pop3Settings
from mailserver.pop3d.transaction import BadCommand
from mailserver.tls import channel_bindings

Preamble = Mapping[str, Any]

_IN_CLEAR: Final = b"-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.\r\n"


class LoginRefused(Exception):
    """The client is not let in, and is told `reply`; where `is_final`, the connection ends."""

    def __init__(self, reply: bytes, is_final: bool = False) -> None:
        super().__init__(reply.decode("ascii"))
        self.reply = reply
        self.is_final = is_final


class Entrance:
    """One connection's way in. Every method but `forget` and the lists raises LoginRefused or BadCommand."""

    def __init__(
        self,
        settings: Pop3Settings,
        logins: Logins,
        record: ConnectionRecord,
        transport: Callable[[], Any],
    ) -> None:
        self._settings = settings
        self._logins = logins
        self._record = record
        self._transport = transport
        self._shown = Shown(settings.certificates, lambda: peer_certificates(transport()))
        self._user: bytes | None = None

    def capabilities(self) -> list[bytes]:
        """CAPA's lines about logins. RFC 2449 §6.2, RFC 5034 §3."""
        if not self._may_log_in:
            return []
        mechanisms = self._mechanisms
        lines = [b"USER"] if "PLAIN" in mechanisms else []
        return [*lines, b"SASL " + " ".join(mechanisms).encode("ascii")]

    def mechanism_list(self) -> bytes:
        """The answer to AUTH alone, as old clients ask."""
        names = [name.encode("ascii") + b"\r\n" for name in self._mechanisms]
        return b"+OK\r\n" + b"".join(names) + b".\r\n"

    @property
    def _may_log_in(self) -> bool:
        return self._record.peer.is_secure or self._settings.allow_plaintext

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        return offered(self._settings.mechanisms, self._record.peer.is_tls, bool(self._shown.name))

    def _check_may_log_in(self, is_final: bool) -> None:
        """No password is looked at that travelled in clear: whoever listens has heard it by now."""
        if not self._may_log_in:
            self._record.was_plaintext_refused = True
            raise LoginRefused(_IN_CLEAR, is_final)

    def name_user(self, name: bytes) -> bytes:
        """USER is remembered for PASS; the reply."""
        self._check_may_log_in(is_final=False)
        if not name:
            raise BadCommand("Missing user name.")
        if "PLAIN" not in self._mechanisms:
            raise BadCommand("Unsupported authentication mechanism.")
        self._user = name
        return b"+OK\r\n"

    def forget(self) -> None:
        """What was said before STLS does not count any more. RFC 2595 §4."""
        self._user = None

    async def password(self, password: bytes) -> Granted:
        """PASS: the login was granted."""
        self._check_may_log_in(is_final=True)
        if self._user is None:
            raise BadCommand("No user name given.")
        user, self._user = self._user, None
        return await self._log_in(Credentials(name_of(user), password))

    async def authenticate(self, argument: bytes, ask: AskLine) -> Granted:
        """AUTH with a mechanism and perhaps an initial response: the login was granted."""
        self._check_may_log_in(is_final=True)
        word, space, rest = argument.partition(b" ")
        mechanism = word.upper().decode("ascii", "replace")
        if mechanism not in self._mechanisms:
            raise BadCommand("Unsupported authentication mechanism.")
        try:
            initial = response(rest) if space else None
            if mechanism not in SCRAM:
                return await self._log_in(await credentials(mechanism, initial, in_base64(ask)))
            dialogue = ScramDialogue(
                self._logins, self._attempt(mechanism), channel_bindings(self._transport())
            )
            attempted = partial(self._record.attempted, mechanism=mechanism)
            return self._granted(await by_scram(dialogue, initial, in_base64(ask), attempted))
        except SaslProblem as problem:
            raise BadCommand(str(problem)) from None

    async def _log_in(self, said: Credentials) -> Granted:
        self._record.attempted(said.name or self._shown.name, said.mechanism)
        attempt = self._attempt(said.mechanism, said.name, said.password)
        return self._granted(await self._logins.login(attempt))

    def _attempt(self, mechanism: str, name: str = "", password: bytes = b"") -> Attempt:
        peer, shown = self._record.peer, self._shown.chain
        return Attempt("pop3", mechanism, name, password, peer, self._record.session, certificates=shown)

    def _granted(self, answer: Granted | Refused) -> Granted:
        if isinstance(answer, Granted):
            return answer
        if answer.temporary:
            raise LoginRefused(b"-ERR [SYS/TEMP] Temporary authentication failure.\r\n")
        self._record.failures += 1
        is_final = self._record.failures >= self._settings.most_login_failures
        raise LoginRefused(b"-ERR [AUTH] Authentication failed.\r\n", is_final)


def preamble_of(record: ConnectionRecord, takes_utf8: bool) -> Preamble:
    """Plain values, fit for JSON, from which the session host's `resume` continues."""
    return {
        "session": record.session,
        "method": record.method,
        "utf8": takes_utf8,
        "peer": asdict(record.peer),
    }


def read_preamble(record: ConnectionRecord, preamble: Preamble) -> bool:
    """The record goes on where the front's ended; whether the client reads UTF-8 headers."""
    record.peer = Peer(**preamble["peer"])
    record.session = preamble["session"]
    record.method = preamble["method"]
    return bool(preamble["utf8"])
