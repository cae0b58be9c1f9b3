"""postconf(1): listing and editing, as Postfix 3.7 does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.commands.postconf import main

MAIN = "compatibility_level = 3.6\n# who\nmyhostname = a.b\nj = 1\nfoo_destination_concurrency_limit = 3\n"
MASTER = (
    "# rows\nsmtp inet n - y - - smtpd\nrelay unix - - y - - smtp\n   -o syslog_name=postfix/$service_name\n"
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A configuration to look at."""
    (tmp_path / "main.cf").write_text(MAIN)
    (tmp_path / "master.cf").write_text(MASTER)
    return tmp_path


def run(here: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["-c", str(here), *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_non_default(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-n: what main.cf sets, sorted; unused names as warnings."""
    assert run(here, capsys, "-n") == (
        0,
        f"compatibility_level = 3.6\nconfig_directory = {here}\n"
        "foo_destination_concurrency_limit = 3\nmyhostname = a.b\n",
        f"postconf: warning: {here}/main.cf: unused parameter: j=1\n",
    )


def test_values(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named ones in their order; -h, -H, -x, -d, -f."""
    assert run(here, capsys, "myorigin", "always_bcc")[1] == "myorigin = $myhostname\nalways_bcc =\n"
    assert run(here, capsys, "-x", "myorigin")[1] == "myorigin = a.b\n"
    assert run(here, capsys, "-hx", "myorigin")[1] == "a.b\n"
    assert run(here, capsys, "-o", "smtpd_banner=a  b\t c", "smtpd_banner")[1] == "smtpd_banner = a b c\n"
    assert run(here, capsys, "-H", "myorigin")[1] == "myorigin\n"
    assert run(here, capsys, "-d", "hopcount_limit")[1] == "hopcount_limit = 50\n"
    assert run(here, capsys, "-o", "myhostname=x.y", "-hx", "myorigin")[1] == "x.y\n"
    folded = run(here, capsys, "-f", "parent_domain_matches_subdomains", "smtpd_relay_restrictions")[1]
    assert "\n    " in folded
    status, out, err = run(here, capsys, "nosuch")
    assert (status, out) == (0, "")
    assert err.startswith("postconf: warning: nosuch: unknown parameter\n")


def test_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every declared parameter once, with what main.cf says."""
    lines = run(here, capsys)[1].splitlines()
    assert lines == sorted(lines, key=lambda line: line.partition(" ")[0])
    assert "myhostname = a.b" in lines and "queue_run_delay = 300s" in lines


def test_tables(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-m lists the types of tables."""
    out = run(here, capsys, "-m")[1].split()
    assert {
        "hash",
        "lmdb",
        "texthash",
        "cidr",
        "regexp",
        "pcre",
        "inline",
        "static",
        "unionmap",
        "pipemap",
    } <= set(out)
    assert out == sorted(out)


def test_edit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-e sets in place or at the end, -X removes, -# comments out; comments stay."""
    assert run(here, capsys, "-e", "myhostname=z", "mydomain = x y")[0] == 0
    assert (here / "main.cf").read_text() == MAIN.replace("a.b", "z") + "mydomain = x y\n"
    assert run(here, capsys, "-X", "j")[0] == 0
    assert run(here, capsys, "-#", "mydomain")[0] == 0
    assert (here / "main.cf").read_text().endswith("limit = 3\n#mydomain = x y\n")
    assert run(here, capsys, "relayhost=[mx.example]")[0] == 0
    assert "relayhost = [mx.example]\n" in (here / "main.cf").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-e"], "postconf: fatal: -e requires name=value argument\n"),
        (["-e", "foo"], "postconf: fatal: missing '=' after attribute name: \"foo\"\n"),
        (["-e", "a=b\nc"], "postconf: fatal: -e accepts no multi-line input\n"),
        (["-X"], "postconf: fatal: missing service argument\n"),
        (["-eX", "a=b"], "postconf: fatal: specify one of -e -X\n"),
        (["-MFP"], "postconf: fatal: specify one of -F -M -P\n"),
        (["-mx"], "postconf: fatal: with option -m, do not specify -x\n"),
        (["-T"], "postconf: option requires an argument -- 'T'\npostconf: fatal: usage: postconf"),
        (["-T", "x"], "postconf: warning: unknown 'postconf -T' mode: x\n"),
        (["-C", "x"], 'postconf: fatal: unknown -C option value "x" in "x"\n'),
        (["-Z"], "postconf: invalid option -- 'Z'\npostconf: fatal: usage: postconf"),
        (["-F", "-e", "a/b/c=d"], 'postconf: fatal: invalid service attribute name: "c"\n'),
        (["-F", "smtp/inet/chroot=maybe"], 'postconf: fatal: invalid chroot field "maybe" in "maybe"\n'),
        (["-P", "smtp/inet/a=b c"], "postconf: fatal: -Pe does not accept whitespace in parameter value\n"),
        (["-P", "smtp/inet=b"], "postconf: fatal: -Pe or -PX requires service_name/type/parameter_name\n"),
    ],
)
def test_fatal(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """1, and nothing was changed."""
    status, _, err = run(here, capsys, *arguments)
    assert status == 1
    assert err.startswith(message)
    assert ((here / "main.cf").read_text(), (here / "master.cf").read_text()) == (MAIN, MASTER)


def test_a_missing_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named, with 1."""
    status, _, err = run(tmp_path / "absent", capsys, "-n")
    assert status == 1
    assert f"{tmp_path}/absent/main.cf: No such file or directory" in err


def test_master(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-M, -F and -P, with Postfix's columns; the folded form of -o."""
    assert run(here, capsys, "-M", "smtp/inet")[1] == (
        "smtp       inet  n       -       y       -       -       smtpd\n"
    )
    assert run(here, capsys, "-Mf", "relay")[1] == (
        "relay      unix  -       -       y       -       -       smtp\n"
        "    -o syslog_name=postfix/$service_name\n"
    )
    assert run(here, capsys, "-F", "smtp/inet/command")[1] == "smtp/inet/command = smtpd\n"
    assert run(here, capsys, "-P")[1] == "relay/unix/syslog_name = postfix/$service_name\n"
    assert (
        run(here, capsys, "-M", "nosuch/inet")[2] == 'postconf: warning: unmatched request: "nosuch/inet"\n'
    )


def test_edit_master(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-Me, -M# and -MX for whole rows."""
    assert run(here, capsys, "-Me", "imap/inet=imap inet n - n - - imapd")[0] == 0
    assert run(here, capsys, "-M#", "smtp/inet")[0] == 0
    assert run(here, capsys, "-MX", "relay/unix")[0] == 0
    assert (here / "master.cf").read_text() == (
        "# rows\n#smtp inet n - y - - smtpd\nimap       inet  n       -       n       -       -       imapd\n"
    )
    assert run(here, capsys, "-Me", "imap/inet=pop3 inet n - n - - pop3d")[0] == 1


def test_edit_fields_and_settings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-F and -P edit a row's fields and -o settings, -PX removes one; what does not match is warned of."""
    assert run(here, capsys, "-F", "*/*/chroot=n")[0] == 0
    assert run(here, capsys, "-P", "smtp/inet/a=b", "relay/unix/syslog_name=c", "smtp/inet/d=$e") == (
        0,
        "",
        "",
    )
    assert (here / "master.cf").read_text() == (
        "# rows\n"
        "smtp       inet  n       -       n       -       -       smtpd\n    -o a=b\n    -o d=$e\n"
        "relay      unix  -       -       n       -       -       smtp\n    -o syslog_name=c\n"
    )
    assert run(here, capsys, "-PX", "*/*/a", "*/*/syslog_name")[0] == 0
    assert run(here, capsys, "-F", "relay/unix/command=pipe -v argv=x -o y")[0] == 0
    assert (here / "master.cf").read_text().splitlines()[1:] == [
        "smtp       inet  n       -       n       -       -       smtpd",
        "    -o d=$e",
        "relay      unix  -       -       n       -       -       pipe -v argv=x -o y",
    ]
    warning = 'postconf: warning: unmatched service_name/type: "no/inet/a=b"\n'
    assert run(here, capsys, "-P", "no/inet/a=b") == (0, "", warning)


def test_classes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-C: the program's own, those of the transports in master.cf, the administrator's."""
    (here / "main.cf").write_text("own = x\nuses = $own\nrelayhost = $uses\n")
    assert run(here, capsys, "-C", "user")[1] == "own = x\nuses = $own\n"
    service = run(here, capsys, "-C", "service")[1].splitlines()
    assert "relay_destination_rate_delay = $default_destination_rate_delay" in service
    everything = run(here, capsys)[1].splitlines()
    builtin = run(here, capsys, "-C", "builtin")[1].splitlines()
    assert set(everything) == {*builtin, *service, "own = x", "uses = $own"}
    assert run(here, capsys, "-C", "all")[1].splitlines() == everything
    assert run(here, capsys, "-C", "user", "-n")[1] == "own = x\nuses = $own\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With examples."""
    assert main(["--help"]) == 0
    assert "examples:\n  postconf -n" in capsys.readouterr().out
