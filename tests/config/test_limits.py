"""Every limit of the table of limits: shipped with that default, and read by the program.

What Postfix or Dovecot have a parameter for is one; what they fix in their code is fixed here too. What a
limit does is tested where it is kept: tests/smtpd/test_limits.py, tests/delivery/test_expand.py and their
neighbours; that an honoured parameter is read, in test_honoured.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.config import Config
from mailserver.config.declaration import Kind, Type
from mailserver.config.parameters import PARAMETERS
from mailserver.config.syntax import Setting
from mailserver.delivery.expand import DEPTH_LIMIT
from mailserver.imapd.settings import ImapSettings
from mailserver.message import mime
from mailserver.pop3d.settings import Pop3Settings
from mailserver.store import names
from mailserver.wire import imap_search, imap_sequence, smtp_reply

DEFAULTS = {
    "line_length_limit": 2048,
    "smtp_line_length_limit": 998,
    "message_size_limit": 10_240_000,
    "mailbox_size_limit": 51_200_000,
    "header_size_limit": 102_400,
    "mime_nesting_limit": 100,
    "smtpd_recipient_limit": 1000,
    "smtpd_recipient_overshoot_limit": 1000,
    "smtpd_soft_error_limit": 10,
    "smtpd_error_sleep_time": 1,
    "smtpd_hard_error_limit": 20,
    "smtpd_junk_command_limit": 100,
    "smtpd_client_connection_count_limit": 50,
    "mail_max_userip_connections": 10,
    "smtpd_timeout": 300,
    "smtpd_starttls_timeout": 300,
    "smtpd_per_request_deadline": True,
    "smtpd_min_data_rate": 500,
    "imap_max_line_length": 65_536,
    "imap_timeout": 1800,
    "pop3_timeout": 600,
    "login_timeout": 180,
    "hopcount_limit": 50,
    "duplicate_filter_limit": 1000,
    "virtual_alias_recursion_limit": 1000,
    "virtual_alias_expansion_limit": 1000,
}
UNDER_STRESS = {
    "smtpd_timeout": 10,
    "smtpd_starttls_timeout": 10,
    "smtpd_hard_error_limit": 1,
    "smtpd_junk_command_limit": 1,
}
FIXED = {
    "IMAP line before login": (ImapSettings().login_line_limit, 8192),
    "IMAP literal before login": (ImapSettings().login_literal_limit, 4096),
    "IMAP bad commands": (ImapSettings().most_bad_commands, 20),
    "IMAP bad commands before login": (ImapSettings().most_bad_commands_before_login, 3),
    "POP3 bad commands before login": (Pop3Settings().most_bad_commands_before_login, 3),
    "POP3 line": (Pop3Settings().line_limit, 512),
    "reply line of another host": (smtp_reply.LONGEST_LINE, 2048),
    "MIME parts": (mime.MOST_PARTS, 10_000),
    "MIME depth": (mime.DEEPEST, 100),
    "alias and include depth": (DEPTH_LIMIT, 100),
    "SEARCH nesting": (imap_search.DEEPEST_SEARCH, 50),
    "sequence-set items": (imap_sequence.MOST_RANGES, 10_000),
    "mailbox name": (names.LONGEST_NAME, 240),
}


def value(config: Config, name: str) -> object:
    """The parameter's value, as its type is read."""
    read = {
        Type.OCTETS: config.octets,
        Type.INTEGER: config.integer,
        Type.SECONDS: config.seconds,
        Type.BOOLEAN: config.boolean,
    }
    return read[PARAMETERS[name].type](name)


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_a_limit_is_honoured_with_its_default(name: str, default: object, tmp_path: Path) -> None:
    """RELIABILITY §10; none is declared without being read."""
    assert PARAMETERS[name].kind is Kind.HONOURED
    assert value(Config(str(tmp_path), {}, (), ()), name) == default


@pytest.mark.parametrize(("name", "limit"), UNDER_STRESS.items())
def test_stress_tightens_limits(name: str, limit: object, tmp_path: Path) -> None:
    """STRESS_README: with many clients everybody has less time."""
    stress = {"stress": Setting("stress", "yes", "main.cf:1")}
    assert value(Config(str(tmp_path), stress, (), ()), name) == limit


@pytest.mark.parametrize(("found", "limit"), FIXED.values(), ids=FIXED)
def test_what_is_fixed(found: int, limit: int) -> None:
    """RELIABILITY §10, limits that nobody sets."""
    assert found == limit
