"""What a dovecot.conf beside main.cf says, in 2.3's spelling and 2.4's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.config import dovecot, dovecot_meaning
from mailserver.config.listeners import listeners
from mailserver.config.syntax import ConfigError
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts
from mailserver.store.layout import parse_location
from tests.config.hosts import written

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
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
        "ssl_ca = </etc/ssl/clients.pem\n"
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
        "  mail_driver = maildir\n  mail_path = /var/mail/public\n  mail_index_private_path = ~/pvt\n}\n"
        "plugin {\n  acl = vfile\n  acl_anyone = allow\n"
        "  acl_shared_dict = file:/var/lib/x\n  quota = none\n}\n",
    )
    assert config.string("shared_namespace") == "user/%u/"
    assert config.words("public_namespaces") == (
        "{ Team mail/=maildir:/srv/team:LAYOUT=fs }",
        "{ Public/=maildir:/var/mail/public }",
    )
    assert config.words("private_seen") == ("{ Team mail/ }", "{ Public/ }")
    assert config.string("acl_anyone") == "allow"
    assert config.string("acl_shared_dict") == "file:/var/lib/x"
    assert config.warnings == ()


def test_private_indexes_of_a_shared_namespace(tmp_path: Path) -> None:
    """INDEXPVT= in the location of other users' mail, as Dovecot's own example has it."""
    shared = "namespace {\n  type = shared\n  prefix = shared/%%u/\n  location = maildir:%%h/Maildir"
    config = written(tmp_path, MAIN, "", shared + ":INDEXPVT=~/Maildir/shared/%%u\n}\n")
    assert config.words("private_seen") == ("{ shared/%u/ }",)
    config = written(tmp_path, MAIN, "", shared + ":INDEX=~/Maildir/shared/%%u\n}\n")
    assert config.words("private_seen") == ()


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


V24 = """\
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.0
protocols {
  imap = yes
  lmtp = yes
}
listen = *, ::
mail_driver = maildir
mail_path = ~/Maildir
mailbox_list_layout = fs
mail_control_path = /var/lib/dovecot/%{user | username}
mail_home = /home/%{user | username}
mail_plugins {
  quota = yes
  fts = yes
}
auth_mechanisms = plain login
auth_username_format = %{user | lower}
imap_max_line_length = 64 k
imap_idle_notify_interval = 2 mins
@mailbox_defaults = english
log_debug = category=auth
fts_autoindex = yes
sieve_script personal {
  path = ~/sieve
}
namespace inbox {
  inbox = yes
  separator = .
  mailbox Trash {
    auto = subscribe
    special_use = \\Trash
  }
}
passdb pam {
}
userdb passwd {
}
ssl = required
ssl_server_cert_file = /etc/ssl/mail.pem
ssl_server_key_file = /etc/ssl/mail.key
ssl_server_dh_file = /etc/dovecot/dh.pem
ssl_min_protocol = TLSv1.2
quota "User quota" {
  quota_storage_size = 1 G
  quota_message_count = unlimited
  warning warn-95 {
    quota_storage_percentage = 95
    execute quota-warning {
      args = 95 %{user}
    }
  }
  warning under {
    quota_storage_percentage = 100
    threshold = under
    execute quota-warning {
      args = below %{user}
    }
  }
}
service quota-warning {
  executable = script /usr/local/bin/quota-warning.sh
  unix_listener quota-warning {
    mode = 0666
  }
}
protocol imap {
  mail_plugins {
    imap_quota = yes
  }
  mail_max_userip_connections = 20
}
"""


def test_a_whole_version_2_4(tmp_path: Path) -> None:
    """Nothing is unknown; what is not here is named as a part of Dovecot."""
    config = written(tmp_path, MAIN + "home_mailbox = Maildir/\n", "", V24)
    location = "maildir:~/Maildir:LAYOUT=fs:CONTROL=/var/lib/dovecot/%{user | username}"
    assert config.string("mail_location") == location
    assert config.string("namespace_separator") == "."
    assert config.octets("imap_max_line_length") == 65536
    assert config.seconds("imap_idle_notify_interval") == 120
    assert config.integer("mail_max_userip_connections") == 20
    assert config.string("quota_rule") == "*:storage=1G:messages=0"
    assert config.string("quota_warning") == (
        "storage=95% /usr/local/bin/quota-warning.sh 95 %{user},"
        " -storage=100% /usr/local/bin/quota-warning.sh below %{user}"
    )
    assert not [warning for warning in config.warnings if "does not know it" in warning]
    named = {warning.split(": ")[1] for warning in config.warnings}
    assert named == {"fts_autoindex", "log_debug", "sieve_script"}


V24_IN_BLOCKS = """\
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
ssl_server {
  cert_file = /etc/ssl/mail.pem
  key_file = /etc/ssl/mail.key
}
auth_mechanisms {
  plain = yes
  login = yes
  cram-md5 = no
}
auth_username_format = %{user | lower}
mailbox_list_utf8 = yes
namespace inbox {
  inbox = yes
  @place = spool
  @nowhere = at all
  separator = .
}
group @place spool {
  @driver = mbox
  mail_path = %{home}/mail
  mail_inbox_path = /var/mail/%{user}
  separator = /
}
group @driver mbox {
  mail_driver = mbox
  mailbox_directory_name = $SET:name
}
passdb virtual {
  passdb_driver = passwd-file
  passwd_file_path = /etc/dovecot/passwd
  default_password_scheme = sha512-crypt
}
userdb virtual {
  driver = static
  fields {
    uid = vmail
    home = /srv/mail/%{user}
  }
}
quota user {
  storage_size = 1G
}
namespace public {
  type = public
  prefix = Public/
  mail_driver = maildir
  mail_path = /srv/public
}
acl_driver = vfile
acl_global_path = /etc/dovecot/acl
acl_sharing_map {
  dict file {
    path = /var/lib/shared
  }
}
"""


def test_blocks_and_groups_of_version_2_4(tmp_path: Path) -> None:
    """Settings in blocks of their own, groups that are included, names before drivers: all are read."""
    config = written(tmp_path, MAIN, "", V24_IN_BLOCKS)
    assert config.string("ssl_cert") == "/etc/ssl/mail.pem"
    assert config.words("auth_mechanisms") == ("plain", "login")
    location = config.string("mail_location")
    assert location == "mbox:%{home}/mail:INBOX=/var/mail/%{user}:UTF-8"
    layout = parse_location(location, Account("bob", 1, 1, "/home/bob"))
    assert (layout.inbox, layout.root, layout.utf8) == ("/var/mail/bob", "/home/bob/mail", True)
    assert config.string("namespace_separator") == "."
    assert config.string("passwd_file") == "/etc/dovecot/passwd"
    assert config.string("mail_home") == "/srv/mail/%{user}"
    assert config.string("quota_rule") == "*:storage=1G"
    assert config.string("public_namespaces") == "{ Public/=maildir:/srv/public:UTF-8 }"
    assert config.string("acl") == "vfile:/etc/dovecot/acl"
    assert config.string("acl_shared_dict") == "file:/var/lib/shared"
    assert [warning.split(": ", 1)[1] for warning in config.warnings] == []


def test_mail_of_the_namespace_with_inbox(tmp_path: Path) -> None:
    """Its location is the account's, in 2.3's words too."""
    main = MAIN + "home_mailbox = M/\n"
    config = written(
        tmp_path, main, "", "namespace inbox {\n inbox = yes\n location = maildir:~/M:UTF-8\n}\n"
    )
    assert config.string("mail_location") == "maildir:~/M:UTF-8"


@pytest.mark.needs("dovecot")
def test_every_setting_of_version_2_3_is_known(tmp_path: Path) -> None:
    """Debian's Dovecot prints its whole configuration; each name of its top level means something here."""
    printed = subprocess.run(
        ["doveconf", "-d"], capture_output=True, text=True, env={**os.environ, "PATH": PATH}, check=True
    ).stdout
    top = re.findall(r"^[a-z0-9_]+ = ?.*$", printed, re.MULTILINE)
    assert len(top) > 250
    text = "".join(f"{line}\n" for line in top)
    parser = dovecot.Parser(lambda path: text, lambda pattern: [])
    parser.parse("dovecot.conf")
    _, warnings = dovecot_meaning.meaning(parser.finish())
    assert not [warning for warning in warnings if "does not know it" in warning]


@pytest.mark.needs("dovecot")
def test_debians_own_configuration(tmp_path: Path) -> None:
    """The stock dovecot.conf with its conf.d loads, and needs no word."""
    for name in ("dovecot.conf", "conf.d"):
        source = Path("/usr/share/dovecot") / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    text = (tmp_path / "dovecot.conf").read_text().replace("/etc/dovecot/", f"{tmp_path}/")
    config = written(tmp_path, "inet_interfaces = 127.0.0.1\nallow_unsupported =\n", "", text)
    assert config.string("namespace_separator") == ""
    assert [warning for warning in config.warnings if "does not know it" in warning] == []


def test_quotas_of_version_2_3(tmp_path: Path) -> None:
    """Rules and warnings of the plugin; a warning that nobody would hear is named."""
    config = written(
        tmp_path,
        MAIN,
        "",
        "plugin {\n  quota = maildir:User quota\n  quota_rule2 = Trash:storage=+10%%\n"
        "  quota_rule = *:storage=1G\n"
        "  quota_warning = storage=95%% quota-warning 95 %u\n"
        "  quota_warning2 = storage=80%% nobody 80 %u\n}\n"
        "service quota-warning {\n  executable = script /bin/warn\n  user = vmail\n}\n",
    )
    assert config.string("quota_rule") == "*:storage=1G, Trash:storage=+10%"
    assert config.string("quota_warning") == "storage=95% /bin/warn 95 %u"
    assert ["no service nobody" in warning for warning in config.warnings] == [True]


def test_a_separator_and_a_prefix(tmp_path: Path) -> None:
    """Both are used, in 2.3's syntax and in 2.4's. Without a dovecot.conf the separator is a slash."""
    new = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
    for number, version in enumerate(("", new)):
        (tmp_path / str(number)).mkdir()
        text = version + "namespace inbox {\n separator = .\n prefix = INBOX.\n inbox = yes\n}\n"
        config = written(tmp_path / str(number), MAIN, "", text)
        assert config.string("namespace_separator") == "."
        assert config.string("namespace_prefix") == "INBOX."
        layout = Parts(config, ListLog()).store.layout_for(Account("alice", 1, 1, "/home/alice"))
        assert (layout.separator, layout.prefix) == (".", "INBOX/")
        assert config.warnings == ()
    (tmp_path / "alone").mkdir()
    assert written(tmp_path / "alone", MAIN, "").string("namespace_separator") == "/"


def test_the_prefix_says_the_separator(tmp_path: Path) -> None:
    """Where Dovecot's configuration leaves that out; a contradiction is refused, with the place."""
    found = "namespace inbox {\n inbox = yes\n prefix = INBOX.\n}\n"
    assert Parts(written(tmp_path, MAIN, "", found), ListLog()).store.personal_namespace == (".", "INBOX/")
    (tmp_path / "wrong").mkdir()
    wrong = found.replace("}", " separator = /\n}")
    with pytest.raises(ConfigError, match=r"dovecot.conf:1.*namespace_separator"):
        _ = Parts(written(tmp_path / "wrong", MAIN, "", wrong), ListLog()).store.personal_namespace


def test_another_prefix_is_refused(tmp_path: Path) -> None:
    """A name that clients knew otherwise loses what they have: that is an error, with the place."""
    with pytest.raises(ConfigError, match=r"dovecot.conf:1.*Mail/"):
        written(tmp_path, MAIN, "", "namespace inbox {\n inbox = yes\n prefix = Mail/\n}\n")


def test_a_second_private_namespace_is_told(tmp_path: Path) -> None:
    """The hidden alias without the prefix, which old configurations have for old clients."""
    config = written(
        tmp_path, MAIN, "",
        "namespace inbox {\n inbox = yes\n prefix = INBOX.\n separator = .\n}\n"
        "namespace compat {\n prefix =\n separator = .\n hidden = yes\n list = no\n}\n",
    )  # fmt: skip
    assert config.string("namespace_prefix") == "INBOX."
    assert ["compat" in warning for warning in config.warnings] == [True]
