"""What an administrator may set about IMAP, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.certificate_logins import CertificateLogins
from mailserver.accounts.login import PASSWORD_MECHANISMS
from mailserver.accounts.throttle import Network
from mailserver.imapd.url_access import NO_URLS, UrlServer

LOGOUT_FORMAT: Final = (
    "in=%i out=%o deleted=%{deleted} expunged=%{expunged} trashed=%{trashed} hdr_count=%{fetch_hdr_count} "
    "hdr_bytes=%{fetch_hdr_bytes} body_count=%{fetch_body_count} body_bytes=%{fetch_body_bytes}"
)


@dataclass(frozen=True, slots=True)
class ImapSettings:
    """Octets and seconds. `tap` fills it from main.cf and dovecot.conf.

    `allow_plaintext` lets passwords travel without TLS from anywhere
    (`disable_plaintext_auth = no`); loopback and `trusted_networks` always may. `identity` is what ID
    answers, `id_log` the fields of the client's ID to log, `*` for all. `capability` replaces the list after
    login, or with a `+` adds to both.
    """

    greeting: str = "Mail server ready."
    message_size_limit: int = 10_240_000
    allow_plaintext: bool = False
    trusted_networks: Sequence[Network] = ()
    mechanisms: tuple[str, ...] = PASSWORD_MECHANISMS
    certificates: CertificateLogins | None = None  # clients are asked for theirs, and what they are worth
    login_timeout: float = 180
    idle_timeout: float = 1800
    idle_notify_interval: float = 120
    poll_interval: float = 30
    progress_interval: float = 10
    line_limit: int = 65_536
    login_line_limit: int = 8_192
    login_literal_limit: int = 4_096
    identity: tuple[tuple[str, str], ...] = (("name", "mailserver"),)
    id_log: tuple[str, ...] = ()
    capability: str = ""
    logout_format: str = LOGOUT_FORMAT
    acl_anyone: bool = False  # whether clients give rights to `anyone` and `authenticated`
    urls: UrlServer = NO_URLS  # those that are this server's
    most_login_failures: int = 3
    most_bad_commands_before_login: int = 3
    most_bad_commands: int = 20

    @property
    def largest_message(self) -> int:
        """Octets of a message in APPEND; `message_size_limit` 0 leaves what memory can hold."""
        return self.message_size_limit or 2**30
