"""How fast clients and users may send: messages and recipients in a unit of time.

A client's rate is anvil(8)'s, mynetworks exempt. A user's is ours: counted by login, from wherever it comes,
mynetworks included, so that a password that was guessed does not make this host a spammer's. What
`sasl_rate_limit_maps` say of a user counts instead of the general limits. The answer is temporary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mailserver.tables.access import first_entry
from mailserver.tables.table import Entry, TableError
from mailserver.wire.smtp import SmtpError

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

_NAMES: Final = {"message": "Message delivery request", "recipient": "Recipient address"}
_COMPLAINTS: Final = {"message": "too much mail", "recipient": "too many recipients"}
_LIMITS: Final = re.compile(r"(\d+)(?:[\s,]+(\d+))?")


class SendingRates:
    """The rates of one session's client and user."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._user = ""
        self._user_limits: dict[str, int] = {}

    @property
    def must_look_up(self) -> bool:
        """Whether the user's limits stand in tables that were not asked yet."""
        session = self._session
        return bool(session.login and session.services.sasl_rate_limits) and self._user != session.login

    async def look_up(self) -> None:
        """The user's limits are known. Raises SmtpError where tables fail."""
        session = self._session
        tables, login = session.services.sasl_rate_limits, session.login
        try:
            entry = await session.services.threads.run(first_entry, tables, _keys(login))
            self._user_limits = {} if entry is None else _limits(entry)
        except TableError as error:
            session.log(f"warning: {error}")
            raise SmtpError(451, "4.3.0", "Error: temporary lookup failure") from None
        self._user = login

    def count(self, event: str) -> None:
        """One more "message" or "recipient" came. Raises SmtpError beyond a rate."""
        session, settings = self._session, self._session.settings
        limits = session.services.limits
        is_message = event == "message"
        limit = settings.client_message_rate_limit if is_message else settings.client_recipient_rate_limit
        address = session.request.address
        count = limits.count(event, address, settings.anvil_rate_time_unit) if limit else 0
        if count > limit and not session.is_trusted:
            self._refuse(event, count, address, "")
        if not session.login:
            return
        limit = settings.sasl_message_rate_limit if is_message else settings.sasl_recipient_rate_limit
        if self._user == session.login:
            limit = self._user_limits.get(event, limit)
        count = limits.count_user(event, session.login, settings.sasl_rate_time_unit) if limit else 0
        if count > limit:
            self._refuse(event, count, session.login, f", sasl_username={session.login}")

    def _refuse(self, event: str, count: int, whose: str, user: str) -> None:
        session = self._session
        exceeded = f"{_NAMES[event]} rate limit exceeded: {count} from {session.client}"
        session.log(f"warning: {exceeded} for service smtp{user}")
        raise SmtpError(450, "4.7.1", f"Error: {_COMPLAINTS[event]} from {whose}")


def _keys(login: str) -> Iterable[str]:
    """The login, then its domain with an @ in front."""
    yield login
    if "@" in login:
        yield login[login.rindex("@") :]


def _limits(entry: Entry) -> dict[str, int]:
    """`MESSAGES` or `MESSAGES RECIPIENTS`, 0 for no limit. Raises TableError."""
    found = _LIMITS.fullmatch(entry.value.strip())
    if found is None:
        raise TableError(f"{entry.source}: {entry.value!r}: write MESSAGES RECIPIENTS, as 500 2000")
    return {"message": int(found[1]), **({"recipient": int(found[2])} if found[2] else {})}
