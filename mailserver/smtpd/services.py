"""What a session needs from its surroundings: one value for all sessions of a listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mailserver.accounts.certificate_logins import CertificateLogins
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Logins
from mailserver.maillog import MailLog
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.smtpd.client_certificate import CertificateRules
from mailserver.smtpd.limits import ClientLimits
from mailserver.smtpd.local_clients import LocalClients
from mailserver.smtpd.lookups import Networks, Resolver
from mailserver.smtpd.milters import Milters
from mailserver.smtpd.policy import Policy
from mailserver.smtpd.proxy import ProxyFilter
from mailserver.smtpd.reception import MakeFilter, Take
from mailserver.smtpd.settings import SmtpdSettings
from mailserver.tables.table import Table
from mailserver.threads import Threads


class Clock(Protocol):
    """The part of a reactor that tells time: `IReactorTime`."""

    def seconds(self) -> float:
        """Seconds that never run backwards."""

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Any:
        """The function is called after so many seconds; the answer can be cancelled."""


class UrlContent(Protocol):
    """The messages that BURL may use. `authority` is the host in their URLs. RFC 4468."""

    authority: str

    def fetch(self, user: str, url: bytes) -> Awaitable[bytes]:
        """What the URL names and the user may send, CRLF line ends. Raises SmtpError. Blocks nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything outside a session. `accepted` takes over a committed message: its file is open and locked.

    `tls` is a context factory, None where STARTTLS is not offered. `may_override_client` are the
    hosts that may use XCLIENT, `may_forward_client` those that may use XFORWARD, `may_send_bare_newlines`
    those with old line ends, `are_not_limited` those that limits do not count, `are_offered_no_login` those
    that see no AUTH. With `certificates` clients are asked for theirs; `certificate_logins` is what these are
    worth in a login. `now` is the wall clock. `sasl_rate_limits` are those of smtpd_sasl_rate_limit_maps,
    `local_clients` those whose headers are completed as our users' are. `take`, where given, makes messages
    durable instead of the queue alone; `proxy` has them pass through a filter instead of either. `urls` is
    what BURL may use, None where there is no BURL.
    """

    settings: SmtpdSettings
    policy: Policy
    queue: QueueDirectory
    make_filter: MakeFilter
    accepted: Callable[[QueueFile], None]
    logins: Logins
    threads: Threads
    log: MailLog
    clock: Clock
    now: Callable[[], float]
    limits: ClientLimits
    resolver: Resolver | None = None
    tls: Any = None
    may_override_client: Networks | None = None
    may_forward_client: Networks | None = None
    may_send_bare_newlines: Networks | None = None
    are_not_limited: Networks | None = None
    are_offered_no_login: Networks | None = None
    sasl_rate_limits: Sequence[Table] = ()
    milters: Milters | None = None
    local_clients: LocalClients = field(default_factory=LocalClients)
    certificates: CertificateRules | None = None
    certificate_logins: CertificateLogins | None = None
    take: Take | None = None
    proxy: ProxyFilter | None = None
    urls: UrlContent | None = None
    logged_in: LoggedIn = field(default_factory=LoggedIn)

    @property
    def patience(self) -> SmtpdSettings:
        """The settings whose time and error limits count now: those under stress, with many connections."""
        settings = self.settings
        if settings.under_stress is None or self.limits.connections < settings.stress_connections:
            return settings
        return settings.under_stress
