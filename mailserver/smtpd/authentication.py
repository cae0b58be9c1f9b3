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
from mailserver.accounts.login import Attempt, Granted, Peer
from mailserver.smtpd import sasl
from mailserver.smtpd.connection import Work
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
        self._name = ""

    @property
    def is_offered(self) -> bool:
        """Whether EHLO shows AUTH: where a password is safe, and nobody logged in yet."""
        return self._is_enabled() and self._may_send_password()

    def _is_enabled(self) -> bool:
        """Whether there is a mechanism for this client; all that we have show a password."""
        session, settings = self._session, self._session.settings
        if not settings.sasl_auth_enable or session.is_among(session.services.are_offered_no_login):
            return False
        is_tls = session.wire.is_tls
        return settings.offers_passwords_under_tls if is_tls else settings.offers_passwords_in_clear

    def _may_send_password(self) -> bool:
        session = self._session
        address = session.peer_address
        is_local = address.startswith("127.") or address == "::1"
        return session.wire.is_tls or is_local or session.settings.allow_plaintext_auth

    def auth(self, argument: bytes) -> Work:
        """The AUTH command, to its end or to its first challenge."""
        session = self._session
        if not self._is_enabled() or not session.is_esmtp:
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
        limit = session.settings.client_auth_rate_limit
        if limit and session.services.limits.count("auth", session.peer_address) > limit:
            raise SmtpError(450, "4.7.1", f"Error: too many AUTH commands from {session.peer_address}")
        self._name = words[0].decode("ascii", "replace").upper()
        self._mechanism = sasl.start(self._name)
        response = sasl.decode_response(words[1]) if len(words) == 2 else None
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
        self._session.wire.reply(334, "", base64.b64encode(result).decode("ascii"))
        self._session.expect_line(self._answered)
        return None

    async def _fail(self, error: SmtpError) -> None:
        if error.code == 535:
            self._count_failure("")
        self._session.reply_error(error)
        self._perhaps_send_away()

    async def _check(self, credentials: sasl.Credentials) -> None:
        session = self._session
        attempt = self._attempt(credentials)
        result = await session.services.logins.login(attempt)
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
            self._count_failure(credentials.name)
            session.reply(535, "5.7.8", "Error: authentication failed: (reason unavailable)")
            self._perhaps_send_away()

    def _attempt(self, credentials: sasl.Credentials) -> Attempt:
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
        return Attempt("smtp", self._name, credentials.name, credentials.password, peer, number)

    def _count_failure(self, name: str) -> None:
        session = self._session
        self._failures += 1
        shown = f", sasl_username={name.translate(_UNSAFE_IN_NAME)}" if name else ""
        reason = "(reason unavailable)"
        session.log(f"warning: {session.client}: SASL {self._name} authentication failed: {reason}{shown}")

    def _perhaps_send_away(self) -> None:
        if self._failures >= _MOST_FAILURES:
            self._session.too_many_errors()
