"""From a directory to a Config: which files, which wins, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mailserver.config.read import ConfigError, config_directory, read_config
from tests.config.hosts import KnownHost, written

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["debian12", "debian13", "rhel9", "seed"])
def test_stock_files_load_without_a_warning(name: str) -> None:
    """What a distribution installs, and the service that all this recreates, start as they stand."""
    config = read_config(str(DATA / name), {}, KnownHost())
    assert config.warnings == ()
    for parameter in config.settings:
        config.string(parameter)


def test_debian_takes_its_origin_from_a_file() -> None:
    """`myorigin = /etc/mailname` stands for the first line of that file."""
    assert read_config(str(DATA / "debian12"), {}, KnownHost()).string("myorigin") == "mailname.example.org"


def test_postfix_own_directories_are_not_shared() -> None:
    """RHEL's main.cf names Postfix's queue and user: ours are used, since a queue has one master."""
    config = read_config(str(DATA / "rhel9"), {}, KnownHost())
    assert config.string("queue_directory") == "/var/spool/mailserver"
    assert config.string("mail_owner") == "mailserver"
    assert config.string("setgid_group") == "maildrop"


def test_which_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-c, then MAIL_CONFIG, then /etc/mailserver, else /etc/postfix."""
    assert config_directory("/a", {"MAIL_CONFIG": "/b"}) == "/a"
    assert config_directory(None, {"MAIL_CONFIG": "/b"}) == "/b"
    monkeypatch.setattr("mailserver.config.read.OWN_DIRECTORY", str(tmp_path))
    assert config_directory(None, {}) == "/etc/postfix"
    (tmp_path / "main.cf").write_text("")
    assert config_directory(None, {}) == str(tmp_path)


def test_a_missing_main_cf_says_what_to_do(tmp_path: Path) -> None:
    """The error names the file and the fix."""
    with pytest.raises(ConfigError, match=r"main\.cf: No such file or directory: .*mailserver init"):
        read_config(str(tmp_path), {})


def test_a_missing_master_cf_is_warned_of(tmp_path: Path) -> None:
    """Without rows there is no SMTP service, and that is said."""
    (tmp_path / "main.cf").write_text("")
    assert "no SMTP service" in read_config(str(tmp_path), {}, KnownHost()).warnings[0]


def test_types(tmp_path: Path) -> None:
    """Each accessor reads its type; times without a unit take the default's."""
    config = written(
        tmp_path,
        "biff = NO\nmaximal_queue_lifetime = 3\nqueue_run_delay = 5m\nmessage_size_limit = 100\n"
        "mydestination = a, b c,{d e} hash:/x\ndelay_warning_time = 4h\nhopcount_limit = 7\n",
    )
    assert config.boolean("biff") is False
    assert config.seconds("maximal_queue_lifetime") == 3 * 86400
    assert config.seconds("queue_run_delay") == 300
    assert config.seconds("delay_warning_time") == 4 * 3600
    assert config.octets("message_size_limit") == 100
    assert config.integer("hopcount_limit") == 7
    assert config.words("mydestination") == ("a", "b", "c", "{d e}", "hash:/x")
    assert config.where("biff") == f"{tmp_path}/main.cf:1"
    assert config.where("relayhost") == "default"
    assert config.is_set("biff") and not config.is_set("relayhost")


@pytest.mark.parametrize(
    "line",
    [
        "smtpd_delay_reject = maybe",
        "queue_run_delay = 5x",
        "message_size_limit = 10M",
        "smtpd_tls_security_level = perhaps",
        "ssl = maybe",
        "myhostname = $mydomain\nmydomain = $myhostname",
        "mydestination = ${myhostname",
    ],
)
def test_a_bad_value_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    """At start, not when it is used."""
    with pytest.raises(ConfigError, match=r"main\.cf:[12]: "):
        written(tmp_path, line + "\n")


def test_raw_parameters_keep_their_dollars(tmp_path: Path) -> None:
    """mailbox_command and its like are expanded at delivery."""
    config = written(tmp_path, 'mailbox_command = procmail -a "$EXTENSION"\n')
    assert config.string("mailbox_command") == 'procmail -a "$EXTENSION"'
    assert config.warnings == ()
    assert "$home/.forward" in config.string("forward_path")


def test_host_defaults(tmp_path: Path) -> None:
    """Name, domain and networks come from the host; mynetworks is this host alone."""
    config = written(tmp_path)
    assert config.string("myhostname") == "mx.example.org"
    assert config.string("mydomain") == "example.org"
    assert config.words("mynetworks") == ("127.0.0.0/8", "192.0.2.5/32", "[::1]/128", "[2001:db8::5]/128")
    subnet = written(tmp_path, "mynetworks_style = subnet\n")
    assert "192.0.2.0/24" in subnet.words("mynetworks")
    assert "[2001:db8::]/64" in subnet.words("mynetworks")


def test_a_host_name_made_of_the_domain(tmp_path: Path) -> None:
    """`myhostname = mail.$mydomain` takes the domain of the system's name."""
    config = written(tmp_path, "myhostname = mail.$mydomain\n")
    assert config.string("myhostname") == "mail.example.org"


def test_old_compatibility_level(tmp_path: Path) -> None:
    """A main.cf that asks for old defaults gets them."""
    old = written(tmp_path, "compatibility_level = 0\nmydestination = a\n")
    assert old.boolean("append_dot_mydomain") is True
    assert old.string("relay_domains") == "a"
    assert written(tmp_path).string("relay_domains") == ""


def test_unused_and_undefined_names_are_warned_of(tmp_path: Path) -> None:
    """Postfix's words, with the line; a name that another value uses is fine."""
    config = written(tmp_path, "j = 1\nmine = x\nmydestination = $mine, $nope\n")
    assert config.warnings == (
        f"{tmp_path}/main.cf:1: unused parameter: j=1",
        f"{tmp_path}/main.cf:3: undefined parameter: nope",
    )


def test_restriction_classes_and_transports_may_have_any_name(tmp_path: Path) -> None:
    """A class is a parameter, and each transport has its own limits."""
    config = written(
        tmp_path,
        "smtpd_restriction_classes = insiders\ninsiders = permit_mynetworks, reject\n"
        "slow_destination_concurrency_limit = 2\n",
    )
    assert config.warnings == ()
    assert config.words("insiders") == ("permit_mynetworks", "reject")
    assert config.integer("slow_destination_concurrency_limit") == 2
    assert config.integer("other_destination_concurrency_limit") == 20
    assert config.integer("other_initial_destination_concurrency") == 5


def test_a_refused_parameter_stops_the_start(tmp_path: Path) -> None:
    """smtp_reply_filter would change what servers say: refused, unless it is allowed by name."""
    with pytest.raises(ConfigError, match=r"main\.cf:1: smtp_reply_filter: .*allow_unsupported"):
        written(tmp_path, "smtp_reply_filter = pcre:/etc/x\n")
    allowed = written(tmp_path, "smtp_reply_filter = pcre:/etc/x\nallow_unsupported = smtp_reply_filter\n")
    assert "smtp_reply_filter" in allowed.warnings[0]


def test_a_refused_parameter_in_a_row_stops_the_start(tmp_path: Path) -> None:
    """-o of our own services counts as main.cf does; Postfix's rows may have what they like."""
    with pytest.raises(ConfigError, match=r"master\.cf:1: smtp_reply_filter"):
        written(tmp_path, "", "25 inet n - n - - smtpd -o smtp_reply_filter=pcre:/etc/x\n")
    quiet = written(tmp_path, "", "relay unix - - n - - smtp -o smtp_header_checks=pcre:/x\n")
    assert quiet.warnings == ()


def test_the_default_of_a_refused_parameter_is_fine(tmp_path: Path) -> None:
    """`smtp_reply_filter =` says nothing."""
    assert written(tmp_path, "smtp_reply_filter =\nsmtpd_milters = $non_smtpd_milters\n").warnings == ()


def test_a_harmless_parameter_is_warned_of(tmp_path: Path) -> None:
    """With its line, and only where it differs from its default."""
    config = written(tmp_path, "smtpd_reject_footer = call us\nmime_boundary_length_limit = 2048\n")
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith(
        f"{tmp_path}/main.cf:1: smtpd_reject_footer: parameter is not supported"
    )


def test_the_environment_wins(tmp_path: Path) -> None:
    """A container sets parameters by MAILSERVER_name."""
    config = written(
        tmp_path, "myhostname = a.b\n", environ={"MAILSERVER_myhostname": "c.d", "MAILSERVER_X": "1"}
    )
    assert config.string("myhostname") == "c.d"
    assert config.where("myhostname") == "environment MAILSERVER_myhostname"


def test_a_row_has_its_own_view(tmp_path: Path) -> None:
    """-o wins in the row's view, $service_name is the row's, and the rest is unchanged."""
    config = written(
        tmp_path,
        "mua = permit_sasl_authenticated, reject\n",
        "submission inet n - n - - smtpd -o syslog_name=postfix/$service_name\n"
        "  -o { smtpd_relay_restrictions = $mua }\n",
    )
    view = config.with_overrides(config.services[0])
    assert view.string("syslog_name") == "postfix/submission"
    assert view.words("smtpd_relay_restrictions") == ("permit_sasl_authenticated", "reject")
    assert view.where("smtpd_relay_restrictions") == f"{tmp_path}/master.cf:1"
    assert config.string("syslog_name") == "postfix"
    assert config.warnings == ()


def test_reading_again_after_a_change(tmp_path: Path) -> None:
    """A Config never changes; a reload reads a new one."""
    shutil.copytree(DATA / "seed", tmp_path / "c")
    before = read_config(str(tmp_path / "c"), {}, KnownHost())
    (tmp_path / "c" / "main.cf").write_text("myhostname = other.example\n")
    assert before.string("myhostname") == "www.hxz.ass"
    assert read_config(str(tmp_path / "c"), {}, KnownHost()).string("myhostname") == "other.example"
