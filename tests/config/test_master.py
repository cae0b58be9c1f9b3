"""master(5)'s grammar, and who listens where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.listeners import Listener, listeners
from mailserver.config.master import format_row, parse_master
from mailserver.config.syntax import ConfigError
from tests.config.hosts import KnownHost, written

DATA = Path(__file__).parent / "data"


def bound(found: list[Listener]) -> list[tuple[str, str, int, bool]]:
    return [(one.service, one.address, one.port, one.implicit_tls) for one in found]


def test_rows() -> None:
    """Fields, continuation lines with comments between, both forms of -o, argv left alone."""
    text = (
        "smtp inet n - y - 50 smtpd -v\n"
        "  -o a=b\n"
        "#  -o c=d\n"
        "  -o { e = f g }\n"
        "uucp unix - n n - - pipe\n"
        "  flags=F user=uucp argv=uux -o x=y -r\n"
    )
    rows, warnings = parse_master(text, "master.cf")
    assert warnings == []
    assert rows[0].overrides == {"a": "b", "e": "f g"}
    assert rows[0].arguments == ("-v", "-o", "a=b", "-o", "{ e = f g }")
    assert rows[0].process_maximum == 50 and rows[1].process_maximum is None
    assert (rows[0].where, rows[1].where) == ("master.cf:1", "master.cf:5")
    assert rows[1].overrides == {}


@pytest.mark.parametrize(
    "row",
    [
        "smtp inet n - y smtpd",
        "smtp tcp n - y - - smtpd",
        "smtp inet maybe - y - - smtpd",
        "smtp inet n - y x - smtpd",
        "smtp inet n - y - many smtpd",
        "smtp inet n - y - - smtpd -o",
        "smtp inet n - y - - smtpd -o a",
        "smtp inet n - y - - smtpd -o { a b }",
        "smtp inet n - y - - smtpd -o { a = b",
    ],
)
def test_a_malformed_row_is_fatal(row: str) -> None:
    """With file and line."""
    with pytest.raises(ConfigError, match=r"^master\.cf:2: "):
        parse_master(f"# comment\n{row}\n", "master.cf")


def test_formatting_gives_the_row_again() -> None:
    """`postconf -M` prints what can be read back, folded or not."""
    rows, _ = parse_master((DATA / "debian12" / "master.cf").read_text(), "master.cf")
    for fold in (False, True):
        text = "".join(format_row(row, fold) + "\n" for row in rows)
        again, _ = parse_master(text, "master.cf")
        assert [(r.service, r.arguments, r.overrides) for r in again] == [
            (r.service, r.arguments, r.overrides) for r in rows
        ]


def test_duplicate_rows_warn() -> None:
    """The last one counts."""
    rows, warnings = parse_master("a inet n - n - - smtpd\na inet n - n - 5 smtpd\n", "m")
    assert [row.process_limit for row in rows] == ["5"]
    assert "duplicate service name a of m:1" in warnings[0]


def test_named_and_numbered_ports(tmp_path: Path) -> None:
    """Names, numbers, hosts, IPv6 in brackets; TLS from the start on 465, 993, 995 or by parameter."""
    config = written(
        tmp_path,
        "inet_interfaces = 192.0.2.5\n",
        "smtp inet n - n - - smtpd\n"
        "submissions inet n - n - - smtpd\n"
        "127.0.0.1:2465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n"
        "[2001:db8::5]:587 inet n - n - - smtpd\n"
        "localhost:pop3 inet n - n - - pop3d\n"
        "imaps inet n - n - - imapd\n"
        "1993 inet n - n - - imapd\n",
    )
    assert bound(listeners(config)) == [
        ("smtpd", "192.0.2.5", 25, False),
        ("smtpd", "192.0.2.5", 465, True),
        ("smtpd", "127.0.0.1", 2465, True),
        ("smtpd", "2001:db8::5", 587, False),
        ("pop3d", "127.0.0.1", 110, False),
        ("pop3d", "::1", 110, False),
        ("imapd", "192.0.2.5", 993, True),
        ("imapd", "192.0.2.5", 1993, False),
    ]


@pytest.mark.parametrize(
    ("lines", "addresses"),
    [
        ("", ["0.0.0.0", "::"]),
        ("inet_protocols = ipv4", ["0.0.0.0"]),
        ("inet_protocols = ipv6", ["::"]),
        ("inet_interfaces = loopback-only", ["127.0.0.1", "::1"]),
        ("inet_interfaces = $myhostname, localhost", ["192.0.2.5", "127.0.0.1", "::1"]),
        ("inet_interfaces = [2001:db8::5] 192.0.2.5", ["2001:db8::5", "192.0.2.5"]),
    ],
)
def test_interfaces(tmp_path: Path, lines: str, addresses: list[str]) -> None:
    """inet_interfaces and inet_protocols say which addresses are bound."""
    config = written(tmp_path, f"protocols = none\n{lines}\n", "25 inet n - n - - smtpd\n")
    assert [one.address for one in listeners(config)] == addresses


def test_a_host_without_ipv6(tmp_path: Path) -> None:
    """`all` is what the system has."""
    config = written(tmp_path, "protocols = none\n", "25 inet n - n - - smtpd\n", host=KnownHost(ipv6=False))
    assert [one.address for one in listeners(config)] == ["0.0.0.0"]


def test_protocols_open_the_retrieval_ports(tmp_path: Path) -> None:
    """Where no row serves POP3 or IMAP, as in Postfix's own master.cf."""
    row = "smtp inet n - n - - smtpd\n"
    main = "inet_interfaces = 127.0.0.1\n"
    ports = [one.port for one in listeners(written(tmp_path, main, row))]
    assert ports == [25, 143, 993, 110, 995]
    ports = [one.port for one in listeners(written(tmp_path, main + "ssl = no\n", row))]
    assert ports == [25, 143, 110]
    ports = [one.port for one in listeners(written(tmp_path, main + "protocols = imap\nssl = no\n", row))]
    assert ports == [25, 143]
    own = row + "1143 inet n - n - - imapd\n"
    assert [one.port for one in listeners(written(tmp_path, main, own))] == [25, 1143]


@pytest.mark.parametrize(
    ("main", "master", "problem"),
    [
        ("", "25 inet n - n - 1 postscreen\n", "postscreen is not supported"),
        ("", "nosuchport inet n - n - - smtpd\n", "unknown port nosuchport"),
        ("", "nosuch.example:25 inet n - n - - smtpd\n", "Name or service not known"),
        (
            "inet_interfaces = 192.0.2.5",
            "smtp inet n - n - - smtpd\n192.0.2.5:25 inet n - n - - smtpd\n",
            "is taken by",
        ),
        ("inet_protocols = ipx", "smtp inet n - n - - smtpd\n", "unknown protocol"),
    ],
)
def test_what_cannot_be_listened_on(tmp_path: Path, main: str, master: str, problem: str) -> None:
    """One line that says which, where and why."""
    with pytest.raises(ConfigError, match=problem):
        listeners(written(tmp_path, main + "\n", master))


def test_stock_rows_make_one_smtp_service() -> None:
    """Postfix's other rows load silently, and listen nowhere."""
    from mailserver.config.read import read_config

    config = read_config(str(DATA / "debian12"), {}, KnownHost())
    assert {(one.service, one.port) for one in listeners(config) if one.service == "smtpd"} == {("smtpd", 25)}
    assert len(config.services) == 18
