"""What a dovecot.conf beside main.cf says, in 2.3's spelling and 2.4's."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.listeners import listeners
from mailserver.config.syntax import ConfigError
from tests.config.hosts import written

MAIN = "inet_interfaces = 127.0.0.1\nmail_spool_directory = /var/mail\n"


def test_the_seeds_retrieval_half(tmp_path: Path) -> None:
    """protocols in dovecot.conf, ssl = no in an included file."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10-ssl.conf").write_text("#ssl = required\nssl = no\n")
    config = written(tmp_path, MAIN, "", "protocols = imap pop3 \n!include conf.d/*.conf\n")
    assert config.string("ssl") == "no"
    assert config.where("ssl") == f"{tmp_path}/conf.d/10-ssl.conf:2"
    assert sorted({one.port for one in listeners(config)}) == [110, 143]
    assert {one.address for one in listeners(config)} == {"0.0.0.0", "::"}
    assert config.warnings == ()


def test_version_2_3(tmp_path: Path) -> None:
    """Blocks, quotes, `<file`, continuation, comments, $earlier, includes that may be missing."""
    config = written(
        tmp_path,
        MAIN,
        "",
        "!include_try missing/*.conf\n"
        "protocols = imap # pop3 too\n"
        "protocols = $protocols pop3\n"
        "mail_location = mbox:~/mail:INBOX=/var/mail/%u\n"
        'login_greeting = "Hello # there"\n'
        "ssl_cert = </etc/ssl/x.pem\n"
        "ssl_key = </etc/ssl/x.key\n"
        "disable_plaintext_auth = no\n"
        "auth_mechanisms = plain \\\n"
        "  login\n"
        "namespace inbox {\n  inbox = yes\n  mailbox Drafts {\n    special_use = \\Drafts\n  }\n}\n"
        "passdb {\n  driver = passwd-file\n  args = scheme=CRYPT username_format=%u /etc/dovecot/users\n}\n"
        "passdb {\n  driver = pam\n}\n"
        "userdb {\n  driver = passwd\n}\n"
        "service imap-login {\n  inet_listener imap {\n  }\n}\n",
    )
    assert config.words("protocols") == ("imap", "pop3")
    assert config.string("login_greeting") == "Hello # there"
    assert config.string("smtpd_tls_cert_file") == "/etc/ssl/x.pem"
    assert config.string("smtpd_tls_key_file") == "/etc/ssl/x.key"
    assert config.boolean("disable_plaintext_auth") is False
    assert config.words("auth_mechanisms") == ("plain", "login")
    assert config.words("account_sources") == ("passwd-file", "pam")
    assert config.string("passwd_file") == "/etc/dovecot/users"
    assert config.string("default_pass_scheme") == "CRYPT"
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("text", "sources", "service"),
    [
        ("passdb {\n driver = pam\n}\nuserdb {\n driver = passwd\n}\n", ("pam",), "dovecot"),
        ("userdb {\n driver = passwd\n}\npassdb {\n driver = pam\n}\n", ("pam",), "dovecot"),
        ("passdb {\n driver = pam\n args = session=yes mail\n}\n", ("pam",), "mail"),
        ("passdb {\n driver = pam\n args = %s\n}\n", ("pam",), "dovecot"),
        ("passdb {\n driver = pam\n args = *\n}\n", ("pam",), "dovecot"),
        ("passdb pam {\n service_name = mail\n}\n", ("pam",), "mail"),
        ("passdb {\n driver = shadow\n}\nuserdb {\n driver = passwd\n}\n", ("system",), "mailserver"),
        ("passdb {\n driver = pam\n}\npassdb {\n driver = shadow\n}\n", ("pam", "system"), "dovecot"),
    ],
)
def test_whose_passwords(tmp_path: Path, text: str, sources: tuple[str, ...], service: str) -> None:
    """PAM is asked where Dovecot asked it; a userdb's users are the same that it has."""
    config = written(tmp_path, MAIN, "", text)
    assert config.words("account_sources") == sources
    assert config.string("pam_service") == service


def test_version_2_4(tmp_path: Path) -> None:
    """The new names mean the old ones."""
    config = written(
        tmp_path,
        MAIN,
        "",
        "dovecot_config_version = 2.4.0\n"
        "mail_driver = mbox\nmail_path = ~/mail\nmail_inbox_path = /var/mail/%{user}\n"
        "auth_allow_cleartext = yes\n"
        "ssl_server_cert_file = /c.pem\n"
        "protocols {\n  imap = yes\n  pop3 = no\n}\n"
        "passdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n",
    )
    assert config.string("mail_location") == "mbox:~/mail:INBOX=/var/mail/%{user}"
    assert config.boolean("disable_plaintext_auth") is False
    assert config.string("smtpd_tls_cert_file") == config.string("smtpd_tls_key_file") == "/c.pem"
    assert config.words("protocols") == ("imap",)
    assert config.string("passwd_file") == "/etc/dovecot/users"
    assert config.warnings == ()


def test_main_cf_wins(tmp_path: Path) -> None:
    """Where both speak, main.cf counts, and that is said."""
    config = written(tmp_path, MAIN + "ssl = required\n", "", "ssl = no\n")
    assert config.string("ssl") == "required"
    assert config.warnings == (
        f"{tmp_path}/dovecot.conf:1: ssl: {tmp_path}/main.cf:3 says otherwise, and counts",
    )


def test_one_certificate_for_all(tmp_path: Path) -> None:
    """Two that differ are said, since only one is served."""
    config = written(tmp_path, MAIN + "smtpd_tls_cert_file = /a.pem\n", "", "ssl_cert = </b.pem\n")
    assert config.string("smtpd_tls_key_file") == "/a.pem"
    assert [warning.partition(": ")[0] for warning in config.warnings] == [f"{tmp_path}/dovecot.conf:1"]


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    """A service's port, and a name that nobody knows."""
    config = written(
        tmp_path,
        MAIN,
        "",
        "nonsense = 1\nservice imap-login {\n inet_listener imap {\n  port = 1143\n }\n}\n",
    )
    assert [warning.partition("dovecot.conf:")[2][:2] for warning in config.warnings] == ["1:", "4:"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("passdb {\n driver = sql\n}\n", "dovecot.conf:1: passdb: driver sql is not supported"),
        ("passdb {\n driver = pam\n", "dovecot.conf:1: section passdb has no closing brace"),
        ("}\n", "dovecot.conf:1: a closing brace without a section"),
        ("what is this\n", "dovecot.conf:1: .*write key = value"),
        ("!include missing.conf\n", "dovecot.conf:1: .*No such file"),
        ("!include dovecot.conf\n", "included from itself"),
    ],
)
def test_what_cannot_be_used_stops_the_start(tmp_path: Path, text: str, problem: str) -> None:
    """Who may log in is not guessed at."""
    with pytest.raises(ConfigError, match=problem):
        written(tmp_path, MAIN, "", text)


def test_namespaces(tmp_path: Path) -> None:
    """Shared and public namespaces and the ACL plugin, in both spellings."""
    config = written(
        tmp_path,
        MAIN,
        "",
        "namespace inbox {\n  inbox = yes\n  prefix =\n}\n"
        "namespace {\n  type = shared\n  prefix = user/%%u/\n"
        "  location = maildir:%%h/Maildir\n  list = children\n}\n"
        "namespace Team {\n  type = public\n  separator = /\n  prefix = Team mail/\n"
        "  location = maildir:/srv/team:LAYOUT=fs:INDEXPVT=~/team\n  subscriptions = no\n}\n"
        "namespace Public {\n  type = public\n  separator = .\n  prefix = Public.\n"
        "  mail_driver = maildir\n  mail_path = /var/mail/public\n}\n"
        "plugin {\n  acl = vfile\n  acl_anyone = allow\n"
        "  acl_shared_dict = file:/var/lib/x\n  quota = none\n}\n",
    )
    assert config.string("shared_namespace") == "user/%u/"
    assert config.words("public_namespaces") == (
        "{ Team mail/=maildir:/srv/team:LAYOUT=fs }",
        "{ Public/=maildir:/var/mail/public }",
    )
    assert config.string("acl_anyone") == "allow"
    assert config.string("acl_shared_dict") == "file:/var/lib/x"
    assert ["separator ." in warning for warning in config.warnings] == [True]


def test_a_public_namespace_without_a_place(tmp_path: Path) -> None:
    """It is left out, and told."""
    config = written(tmp_path, MAIN, "", "namespace Team {\n  type = public\n  prefix = Team/\n}\n")
    assert config.words("public_namespaces") == ()
    assert "no location" in config.warnings[0]


def test_the_socket_of_service_auth_is_the_auth_listener(tmp_path: Path) -> None:
    """The first one for clients outside Dovecot's own directory, with its mode, user and group."""
    sockets = (
        "unix_listener auth-userdb {\n mode = 0600\n }\n"
        "unix_listener /run/x/auth-master {\n }\n"
        "unix_listener /run/x/off {\n mode = 0\n }\n"
        "unix_listener /var/spool/postfix/private/auth {\n"
        " mode = 0666\n user = postfix\n group = postfix\n }\n"
        "unix_listener /run/y/auth {\n }\n"
    )
    config = written(tmp_path, MAIN, "", f"service auth {{\n {sockets}}}\n")
    assert config.string("auth_listener") == "/var/spool/postfix/private/auth"
    found = [config.string(f"auth_listener_{name}") for name in ("mode", "user", "group")]
    assert found == ["0666", "postfix", "postfix"]
    assert not config.warnings
