"""AUTH in a session: who may try, how often, and what comes of it. RFC 4954.

A password that comes in clear from elsewhere is refused and not even looked at: an answer would
tell a listener on the wire whether it was right (RELIABILITY B21). Delays and penalties are
inside `Logins`. After three failures the connection ends (B20).
"""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Final

from mailserver.accounts.logged_in import Login
from mailserver.accounts.login import Attempt, Granted, Peer, Refused, offered
from mailserver.accounts.scram_dialogue import MECHANISMS as SCRAM
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.smtpd import sasl
from mailserver.smtpd.connection import Command, Work
from mailserver.tls import channel_bindings
from mailserver.wire.scram import ScramSyntaxError
from mailserver.wire.smtp import SmtpError

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

_MOST_FAILURES: Final = 3
_UNSAFE_IN_NAME: Final = str.maketrans("", "", "<>,")
_session_numbers: Final = itertools.count(1)


class Authentication:
    """The AUTH command of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._failures = 0
        self._mechanism: sasl.Mechanism | None = None
        self._dialogue: ScramDialogue | None = None
        self._name = ""

    @property
    def offered(self) -> tuple[str, ...]:
        """The mechanisms that EHLO shows: where a password is safe."""
        return self._mechanisms() if self._may_send_password() else ()

    def _mechanisms(self) -> tuple[str, ...]:
        """The mechanisms that there are for this client."""
        session, settings = self._session, self._session.settings
        if not settings.sasl_auth_enable or session.is_among(session.services.are_offered_no_login):
            return ()
        is_tls = session.wire.is_tls
        there_are = settings.mechanisms_under_tls if is_tls else settings.mechanisms_in_clear
        return offered(there_are, is_tls, bool(session.certificate.shown.name))

    def _may_send_password(self) -> bool:
        session = self._session
        address = session.peer_address
        is_local = address.startswith("127.") or address == "::1"
        return session.wire.is_tls or is_local or session.settings.allow_plaintext_auth

    def auth(self, argument: bytes) -> Work:
        """The AUTH command, to its end or to its first challenge."""
        session = self._session
        mechanisms = self._mechanisms()
        if not mechanisms or not session.is_esmtp:
            raise SmtpError(503, "5.5.1", "Error: authentication not enabled")
        if session.mail.is_open:
            raise SmtpError(503, "5.5.1", "Error: MAIL transaction in progress")
        if session.login:
            raise SmtpError(503, "5.5.1", "Error: already authenticated")
        if not self._may_send_password():
            raise SmtpError(538, "5.7.11", "Encryption required for requested authentication mechanism")
        words = argument.split()
        if not 1 <= len(words) <= 2:
            raise SmtpError(501, "5.5.4", "Syntax: AUTH mechanism")
        limit, unit = session.settings.client_auth_rate_limit, session.settings.anvil_rate_time_unit
        if limit and session.services.limits.count("auth", session.peer_address, unit) > limit:
            raise SmtpError(450, "4.7.1", f"Error: too many AUTH commands from {session.peer_address}")
        self._name = words[0].decode("ascii", "replace").upper()
        if self._name not in mechanisms:
            raise SmtpError(504, "5.5.4", "Error: unrecognized authentication mechanism")
        response = sasl.decode_response(words[1]) if len(words) == 2 else None
        if self._name in SCRAM:
            bindings = channel_bindings(session.wire.transport)
            self._dialogue = ScramDialogue(session.services.logins, self._attempt(), bindings)
            return self._prove(response)
        self._mechanism = sasl.start(self._name)
        return self._step(response)

    def _answered(self, line: bytes) -> Work:
        try:
            return self._step(sasl.decode_response(line))
        except SmtpError as error:
            return self._fail(error)

    def _step(self, response: bytes | None) -> Work:
        assert self._mechanism is not None
        try:
            result = self._mechanism.step(response)
        except SmtpError as error:
            return self._fail(error)
        if isinstance(result, sasl.Credentials):
            return self._check(result)
        self._challenge(result, self._answered)
        return None

    def _challenge(self, octets: bytes, continuation: Command) -> None:
        self._session.wire.reply(334, "", base64.b64encode(octets).decode("ascii"))
        self._session.expect_line(continuation)

    def _proved(self, line: bytes) -> Work:
        try:
            return self._prove(sasl.decode_response(line))
        except SmtpError as error:
            return self._fail(error)

    async def _prove(self, response: bytes | None) -> None:
        """One step of SCRAM's dialogue."""
        dialogue = self._dialogue
        assert dialogue is not None
        try:
            answer = b"" if response is None else await dialogue.step(response)
        except ScramSyntaxError as problem:
            await self._fail(SmtpError(501, "5.5.2", f"Error: {problem}"))
            return
        if isinstance(answer, bytes):
            self._challenge(answer, self._proved)
        else:
            self._conclude(answer, dialogue.attempt)

    async def _fail(self, error: SmtpError) -> None:
        if error.code == 535:
            self._count_failure("")
        self._session.reply_error(error)
        self._perhaps_send_away()

    async def _check(self, credentials: sasl.Credentials) -> None:
        attempt = self._attempt(credentials)
        self._conclude(await self._session.services.logins.login(attempt), attempt)

    def _conclude(self, result: Granted | Refused, attempt: Attempt) -> None:
        session = self._session
        if isinstance(result, Granted):
            session.login = result.account.name
            login = Login(session.login, "smtp", session.peer_address, 0, attempt.session)
            session.enter(login)
            session.sasl_method = self._name
            session.reply(235, "2.7.0", "Authentication successful")
        elif result.temporary:
            session.log(
                f"warning: {session.client}: SASL {self._name} authentication failed: {result.reason}"
            )
            session.reply(454, "4.7.0", "Temporary authentication failure: try again later")
        else:
            self._count_failure(attempt.name)
            session.reply(535, "5.7.8", "Error: authentication failed: (reason unavailable)")
            self._perhaps_send_away()

    def _attempt(self, credentials: sasl.Credentials = sasl.NOBODY) -> Attempt:
        session = self._session
        transport = session.wire.transport
        here, there = transport.getHost(), transport.getPeer()
        peer = Peer(
            session.peer_address,
            getattr(there, "port", 0),
            str(getattr(here, "host", "")),
            getattr(here, "port", 0),
            session.wire.is_tls,
            session.wire.is_tls or session.peer_address.startswith("127.") or session.peer_address == "::1",
        )
        number = f"smtp{next(_session_numbers)}"
        name, password, shown = credentials.name, credentials.password, session.certificate.shown.chain
        return Attempt("smtp", self._name, name, password, peer, number, certificates=shown)

    def _count_failure(self, name: str) -> None:
        session = self._session
        self._failures += 1
        shown = f", sasl_username={name.translate(_UNSAFE_IN_NAME)}" if name else ""
        reason = "(reason unavailable)"
        session.log(f"warning: {session.client}: SASL {self._name} authentication failed: {reason}{shown}")

    def _perhaps_send_away(self) -> None:
        if self._failures >= _MOST_FAILURES:
            self._session.too_many_errors()
