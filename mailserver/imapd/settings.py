"""What an administrator may set about IMAP, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.accounts.login import PASSWORD_MECHANISMS


@dataclass(frozen=True, slots=True)
class ImapSettings:
    """Octets and seconds. `tap` fills it from main.cf and dovecot.conf.

    `allow_plaintext` lets passwords travel without TLS from anywhere
    (`disable_plaintext_auth = no`); loopback always may.
    """

    greeting: str = "Mail server ready."
    message_size_limit: int = 10_240_000
    allow_plaintext: bool = False
    mechanisms: tuple[str, ...] = PASSWORD_MECHANISMS
    login_timeout: float = 180
    idle_timeout: float = 1800
    idle_notify_interval: float = 120
    poll_interval: float = 30
    progress_interval: float = 10
    line_limit: int = 65_536
    login_line_limit: int = 8_192
    login_literal_limit: int = 4_096
    acl_anyone: bool = False  # whether clients give rights to `anyone` and `authenticated`
    most_login_failures: int = 3
    most_bad_commands_before_login: int = 3
    most_bad_commands: int = 20

    @property
    def largest_message(self) -> int:
        """Octets of a message in APPEND; `message_size_limit` 0 leaves what memory can hold."""
        return self.message_size_limit or 2**30
