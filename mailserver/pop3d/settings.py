"""What an administrator may set about POP3, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.certificate_logins import CertificateLogins
from mailserver.accounts.login import PASSWORD_MECHANISMS
from mailserver.accounts.throttle import Network
from mailserver.pop3d.uidl import DEFAULT_FORMAT, uidl_maker

LOGOUT_FORMAT: Final = "top=%t/%p, retr=%r/%b, del=%d/%m, size=%s"


@dataclass(frozen=True, slots=True)
class Pop3Settings:
    """Octets and seconds. `tap` fills it from main.cf and dovecot.conf.

    `allow_plaintext` lets passwords travel without TLS from anywhere
    (`disable_plaintext_auth = no`); loopback and `trusted_networks` always may. `marks_seen` is the
    opposite of `pop3_no_flag_updates`. Raises ValueError for a `uidl_format` that cannot be.
    """

    greeting: str = "Mail server ready."
    uidl_format: str = DEFAULT_FORMAT
    allow_plaintext: bool = False
    trusted_networks: Sequence[Network] = ()
    mechanisms: tuple[str, ...] = PASSWORD_MECHANISMS
    certificates: CertificateLogins | None = None  # clients are asked for theirs, and what they are worth
    marks_seen: bool = True
    reuses_old_ids: bool = False  # pop3_reuse_xuidl
    logout_format: str = LOGOUT_FORMAT
    login_timeout: float = 180
    idle_timeout: float = 600  # RFC 1939 §3: at least ten minutes
    line_limit: int = 512
    response_line_limit: int = 12_288  # of a line that answers AUTH's `+ `; RFC 4954 §4
    most_login_failures: int = 3
    most_bad_commands_before_login: int = 3
    most_bad_commands: int = 20

    def __post_init__(self) -> None:
        uidl_maker(self.uidl_format)
