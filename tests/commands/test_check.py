"""mailserver check and postfix check: one line for each problem, with the cure."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.commands import check, postfix
from mailserver.commands.checks import Checks
from mailserver.commands.main import main
from mailserver.tls import self_signed


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo home whose ports are free ones."""
    home = tmp_path_factory.mktemp("check") / "home"
    assert main(["init", str(home), "--demo"]) == 0
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh copy, listening on one port that the system chose."""
    copy = tmp_path / "home"
    shutil.copytree(template, copy)
    users = copy / "users"
    users.write_text(users.read_text().replace(str(template), str(copy)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (copy / "master.cf").write_text(f"127.0.0.1:{port} inet n - n - - smtpd\n")
    add(copy, "protocols = none")
    yield copy


def add(home: Path, *lines: str) -> None:
    with (home / "main.cf").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def problems(home: Path) -> list[str]:
    """All but what the copy's own doubled lines cause."""
    found = [problem.text for problem in Checks(str(home)).problems]
    return [text for text in found if "overriding earlier entry" not in text]


def only(home: Path, *words: str) -> None:
    """There is one problem, which has all of the words."""
    found = problems(home)
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found[0]


def test_clean(home: Path) -> None:
    """A fresh home has no problem."""
    assert problems(home) == []


def test_transports_that_no_row_has(home: Path) -> None:
    """Mail for one would wait; the row that is missing is shown. A pipe row that is wrong stops the start."""
    add(home, "content_filter = scan:[127.0.0.1]:10025", "mailbox_transport = lmtp:unix:/run/x")
    only(home, "main.cf:", "content_filter: there is no transport scan", "scan unix - - n - - smtp")
    rows = home / "master.cf"
    rows.write_text(rows.read_text() + "scan unix - - n - - smtp\n")
    assert problems(home) == []
    rows.write_text(rows.read_text() + "broken unix - n n - - pipe flags=z user=x argv=y\n")
    only(home, "master.cf:3: broken: unknown flag z")


@pytest.mark.parametrize("name", ["smtpd_milters", "non_smtpd_milters"])
def test_milters_that_cannot_be_meant(home: Path, name: str) -> None:
    """Named with their line."""
    add(home, f"{name} = inet:nonsense")
    only(home, "main.cf:", f"{name}: inet:nonsense: write inet:host:port")


def test_a_name_without_a_domain(home: Path) -> None:
    """Other hosts refuse it."""
    add(home, "myhostname = mail")
    only(home, "main.cf:", "myhostname", "not fully qualified")


def test_an_unknown_parameter(home: Path) -> None:
    """The reader's own warnings are shown with their line."""
    add(home, "smtpd_nonsense = 1")
    only(home, "unused parameter: smtpd_nonsense=1")


def test_a_bad_value_is_fatal(home: Path) -> None:
    """The server would not start."""
    add(home, "message_size_limit = lots")
    checks = Checks(str(home))
    assert checks.is_fatal and checks.config is None
    assert any("message_size_limit" in problem.text for problem in checks.problems)


def test_a_file_that_others_may_write(home: Path) -> None:
    """Whoever writes main.cf is root."""
    (home / "main.cf").chmod(0o666)
    only(home, "group or other writable", "main.cf", "chmod go-w")


def test_a_table_in_a_directory_that_others_may_write(home: Path) -> None:
    """RELIABILITY B29: whoever may rename in its directory may put another table in its place."""
    tables = home / "tables"
    tables.mkdir(mode=0o755)
    (tables / "virtual").write_text("a@example.org b\n")
    tables.chmod(0o777)
    add(home, f"virtual_alias_maps = texthash:{tables}/virtual")
    only(home, "group or other writable", f"{tables}:", "chmod go-w")
    tables.chmod(0o1777)  # nobody renames others' files there
    assert problems(home) == []


@pytest.mark.needs("root")
def test_a_table_that_belongs_to_a_user(home: Path) -> None:
    """RELIABILITY B29: so may whoever owns it, or its directory."""
    (home / "tables").mkdir()
    table = home / "tables" / "virtual"
    table.write_text("a@example.org b\n")
    add(home, f"virtual_alias_maps = texthash:{table}")
    for path in (table, table.parent):
        os.chown(path, 4242, -1)
        only(home, f"{path} belongs to uid 4242", "chown root")
        os.chown(path, 0, -1)


@pytest.mark.parametrize("name", ["users", "tls/key.pem"])
def test_a_secret_that_others_may_read(home: Path, name: str) -> None:
    """Password hashes and keys."""
    (home / name).chmod(0o644)
    only(home, name, "readable by others", "chmod o-r")


def test_a_rule_that_cannot_be_read(home: Path) -> None:
    """Of a pattern table: mail that reaches it waits."""
    rules = home / "rules"
    rules.write_text("/a/ OK\n/(b/ REJECT\n")
    with (home / "main.cf").open("a") as file:
        file.write(f"header_checks = regexp:{rules}\n")
    only(home, f'regexp map {rules}, line 2: bad pattern "(b"', "mend it")


def test_an_index_that_is_old(home: Path) -> None:
    """postmap was forgotten."""
    index = home / "access.lmdb"
    index.write_bytes(b"")
    os.utime(index, (1, 1))
    only(home, f"database {index} is older than source file {home}/access", f"postmap {home}/access")


def test_a_table_that_is_not_there(home: Path) -> None:
    """Mail for it would wait."""
    add(home, "virtual_alias_maps = texthash:/nonexistent/virtual")
    only(home, "texthash:/nonexistent/virtual", "No such file")


def test_an_access_file_that_nobody_reads(home: Path) -> None:
    """It looks as if it did something."""
    add(home, "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination")
    only(home, f"{home}/access", "no restriction names this file", "check_client_access")


def test_an_open_relay_is_fatal(home: Path) -> None:
    """RELIABILITY §9: it does not start."""
    add(home, "smtpd_relay_restrictions = permit")
    found = Checks(str(home))
    assert found.is_fatal and not found.relay_is_safe


def test_a_pam_service_that_nothing_describes(home: Path) -> None:
    """PAM's other service would answer, and deny everybody on some systems."""
    add(home, "account_sources = passwd-file pam", "pam_service = no-such-service", "mail_owner = nobody")
    assert [text for text in problems(home) if "no /etc/pam.d/no-such-service" in text]
    add(home, "account_sources = passwd-file")
    assert not [text for text in problems(home) if "pam" in text]


def test_burl_that_is_not_offered(home: Path) -> None:
    """BURL needs to know which URLs are ours, and a process that reaches everybody's mail."""
    add(home, "smtpd_burl_enable = yes")
    only(home, "main.cf", "smtpd_burl_enable", "imap_urlauth_host")
    add(home, "imap_urlauth_host = mail.example")
    assert problems(home) == []


def test_a_missing_spool(home: Path) -> None:
    """Nothing could be delivered."""
    shutil.rmtree(home / "spool" / "mail")
    only(home, "mail_spool_directory", "no such directory", "mkdir -p")


def test_a_queue_that_is_open_or_somebody_elses(home: Path) -> None:
    """Mail waits there: for its owner's eyes alone."""
    for name in ("incoming", "deferred", "hold", "maildrop"):
        (home / "queue" / name).mkdir(parents=True, mode=0o700)
    assert problems(home) == []
    (home / "queue" / "hold").chmod(0o755)
    only(home, "queue/hold is open to others", "chmod 700")


def test_certificates(home: Path) -> None:
    """A pair that does not fit is fatal; one that ends soon is a warning."""
    soon = self_signed(["mail.example.org"], time.time(), days=5)
    (home / "tls" / "certificate.pem").write_bytes(soon.chain)
    assert Checks(str(home)).is_fatal
    (home / "tls" / "key.pem").write_bytes(soon.key)
    only(home, "certificate.pem expires in 4 days", "renew")
    old = self_signed(["mail.example.org"], time.time() - 10 * 86_400, days=5)
    (home / "tls" / "certificate.pem").write_bytes(old.chain)
    (home / "tls" / "key.pem").write_bytes(old.key)
    only(home, "certificate.pem has expired", "renew")


def test_a_port_that_somebody_has(home: Path) -> None:
    """The address, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (home / "master.cf").write_text(f"127.0.0.1:{port} inet n - n - - smtpd\n")
        only(home, f"127.0.0.1:{port}", "Address already in use")


def test_forward_files_that_would_be_ignored(home: Path) -> None:
    """Each user, with the fix."""
    for name, mode in (("alice", 0o600), ("bob", 0o644)):
        path = home / "home" / name / ".forward"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"\\{name}\n")
        path.chmod(mode)
        if os.geteuid() == 0:
            owner = Checks(str(home)).parts.accounts.lookup(name)
            assert owner is not None
            os.chown(path, owner.uid, owner.gid)
    only(home, "alice/.forward has mode 0600, must be 0644", "chmod 0644")


def arguments(home: Path, as_json: bool) -> argparse.Namespace:
    return argparse.Namespace(config_directory=str(home), json=as_json)


def test_summary(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the server would be; the same as JSON."""
    capsys.readouterr()
    assert check.run(arguments(home, True)) == 0
    values = json.loads(capsys.readouterr().out)["summary"]
    assert values["name"] == "mail.example.org" and values["accounts"] == 2 and values["relay_safe"]
    assert values["running"] is None and len(values["listeners"]) == 1
    assert check.run(arguments(home, False)) == 0
    text = capsys.readouterr().out
    assert "relay safe    yes" in text and "server        not running" in text


def test_postfix_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Problems with Postfix's prefix; 1 where one is fatal."""
    capsys.readouterr()
    add(home, "myhostname = mail")
    assert postfix.main(["-c", str(home), "check"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("postfix/postfix-script: warning: ") for line in lines)
    add(home, "smtpd_relay_restrictions = permit")
    assert postfix.main(["-c", str(home), "check"]) == 1
    assert "postfix/postfix-script: fatal: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("stop", "fatal: the Postfix mail system is not running"),
        ("abort", "fatal: the Postfix mail system is not running"),
        ("reload", "fatal: the Postfix mail system is not running"),
        ("status", "the Postfix mail system is not running"),
        ("nonsense", "fatal: unknown command: 'nonsense'. Usage: postfix start"),
    ],
)
def test_postfix_where_nothing_runs(
    home: Path, capsys: pytest.CaptureFixture[str], word: str, text: str
) -> None:
    """Status 1, Postfix's words."""
    capsys.readouterr()
    assert postfix.main(["-c", str(home), word]) == 1
    assert capsys.readouterr().err.startswith(f"postfix/postfix-script: {text}")


def test_postfix_flush_where_nothing_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """69, as postqueue's."""
    assert postfix.main(["-c", str(home), "flush"]) == 69
    assert "mail system is down" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["start", "stop"], ["-x", "start"]])
def test_postfix_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One command a call."""
    assert postfix.main(words) == 1
    assert "fatal: usage: postfix" in capsys.readouterr().err


def test_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, no traceback."""
    assert postfix.main(["-c", str(tmp_path / "nowhere"), "status"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("lines", "is_told"), [
    (["ssl = no"], True),
    (["ssl = no", "disable_plaintext_auth = no"], False),
    (["ssl = yes"], False),
])  # fmt: skip
def test_ssl_no_leaves_network_clients_out(home: Path, lines: list[str], is_told: bool) -> None:
    """Both fixes are named; a listener on loopback is no problem."""
    add(home, *lines)
    port = (home / "master.cf").read_text().partition(":")[2].split()[0]
    (home / "master.cf").write_text(f"0.0.0.0:{port} inet n - n - - imapd\n")
    if is_told:
        only(
            home,
            "ssl = no",
            f"0.0.0.0:{port}",
            "ssl = yes",
            "smtpd_tls_cert_file",
            "disable_plaintext_auth = no",
        )
    else:
        assert problems(home) == []
    (home / "master.cf").write_text(f"127.0.0.1:{port} inet n - n - - imapd\n")
    assert problems(home) == []


@pytest.mark.parametrize(("lines", "words"), [
    (["auth_listener = private/auth"], ["auth_listener", "no absolute path"]),
    (["auth_listener = /no/such/auth"], ["/no/such", "No such file"]),
    (["auth_listener = /tmp/auth", "auth_listener_user = nobody-here"], ["nobody-here", "no such user"]),
    (["auth_listener = /tmp/auth", "auth_listener_mode = rw"], ["auth_listener_mode rw"]),
    (["smtpd_sasl_path = /no/such/auth"], ["/no/such/auth", "no Dovecot checks logins"]),
])  # fmt: skip
def test_sockets_for_logins(home: Path, lines: list[str], words: list[str]) -> None:
    """Where other programs ask us, and where we ask Dovecot."""
    add(home, *lines)
    if lines[0].startswith("auth_listener"):
        assert problems(home) == []  # no pop3d or imapd: no socket
        rows = (home / "master.cf").read_text()
        (home / "master.cf").write_text(rows.replace("smtpd", "imapd"))
    only(home, *words)
