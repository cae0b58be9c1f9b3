"""What the configuration says about one SMTP listener, as plain values.

Each field is the main.cf parameter of that name, `smtpd_` left off where the name has it; fields without
a counterpart there say what they are. Times are in seconds, sizes in octets; 0 means no limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.accounts.login import PASSWORD_MECHANISMS
from mailserver.tables.lists import Item, StringList
from mailserver.wire.lines import BareNewline

_PROXY_COMMANDS: Final = StringList([Item(verb, False, "") for verb in ("CONNECT", "GET", "POST")])


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpdSettings:
    """The settings of a listener. RELIABILITY §10 has the reasons of the defaults."""

    myhostname: str
    banner: str = ""  # as expanded; "" is `$myhostname ESMTP $mail_name`
    mail_name: str = "Postfix"
    syslog_service: str = "smtpd"  # "submission/smtpd" where master.cf says so
    message_size_limit: int = 10_240_000
    recipient_limit: int = 1000
    recipient_overshoot_limit: int = 1000
    soft_error_limit: int = 10
    hard_error_limit: int = 20
    error_sleep_time: float = 1.0
    junk_command_limit: int = 100
    timeout: float = 300.0
    starttls_timeout: float = 300.0
    per_request_deadline: bool = True  # timeout holds for a whole command, and content keeps min_data_rate
    min_data_rate: int = 500
    line_length_limit: int = 2048
    forbid_bare_newline: BareNewline = BareNewline.NORMALIZE
    forbid_bare_newline_reject_code: int = 550
    forbidden_commands: StringList = _PROXY_COMMANDS
    forbid_unauth_pipelining: bool = False
    helo_required: bool = False
    disable_vrfy_command: bool = False
    strict_rfc821_envelopes: bool = False
    allow_min_user: bool = False
    resolve_numeric_domain: bool = False
    sasl_auth_enable: bool = True
    allow_plaintext_auth: bool = False  # AUTH without TLS from elsewhere than this host
    mechanisms_in_clear: tuple[str, ...] = PASSWORD_MECHANISMS  # those that smtpd_sasl_security_options leave
    mechanisms_under_tls: tuple[str, ...] = PASSWORD_MECHANISMS  # the same, smtpd_sasl_tls_security_options
    tls_required: bool = False  # smtpd_tls_security_level = encrypt
    sasl_authenticated_header: bool = False
    tls_received_header: bool = True
    always_add_missing_headers: bool = False
    soft_bounce: bool = False  # every 5xx is said as 4xx
    discard_ehlo_keywords: frozenset[str] = frozenset()  # lower case
    content_filter: str = ""  # transport:nexthop
    adds_copies: bool = True  # receive_override_options without no_address_mappings
    client_connection_count_limit: int = 50
    client_connection_rate_limit: int = 0
    client_message_rate_limit: int = 0
    client_recipient_rate_limit: int = 0
    client_auth_rate_limit: int = 0
    anvil_rate_time_unit: float = 60.0
    sasl_message_rate_limit: int = 0
    sasl_recipient_rate_limit: int = 0
    sasl_rate_time_unit: float = 3600.0
    stress_connections: int = 0  # with so many connections, under_stress counts; 0: never
    under_stress: SmtpdSettings | None = None

    @property
    def greeting(self) -> str:
        """What follows 220."""
        return self.banner or f"{self.myhostname} ESMTP {self.mail_name}"
