"""cidr:, regexp: and pcre: tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailserver.tables.access import first_entry
from mailserver.tables.cidr import parse_network
from mailserver.tables.open import TableOpener, open_table
from mailserver.tables.regexp import posix_to_python
from mailserver.tables.table import TableError


def ask(tmp_path: Path, kind: str, text: str, key: str) -> str | None:
    path = tmp_path / "t"
    path.write_text(text)
    entry = open_table(f"{kind}:{path}").find(key)
    return None if entry is None else entry.value


CIDR = """\
# first match wins
192.0.2.1        OK one
!10.0.0.0/8      DUNNO
if 10.1.0.0/16
10.1.2.0/24      REJECT two
if 10.1.3.0/24
10.1.3.3         REJECT three
endif
endif
10.0.0.0/8       REJECT
    all of it
2001:db8::/32    REJECT six
"""


@pytest.mark.parametrize(
    ("key", "result"),
    [
        ("192.0.2.1", "OK one"),
        ("192.0.2.2", "DUNNO"),
        ("10.1.2.3", "REJECT two"),
        ("10.1.3.3", "REJECT three"),
        ("10.1.3.4", "REJECT    all of it"),
        ("10.9.9.9", "REJECT    all of it"),
        ("::ffff:10.9.9.9", "REJECT    all of it"),
        ("not an address", None),
    ],
)
def test_cidr(tmp_path: Path, key: str, result: str | None) -> None:
    """Networks, negation, if and endif, continuation. cidr_table(5)."""
    assert ask(tmp_path, "cidr", CIDR, key) == result


def test_cidr_ipv6(tmp_path: Path) -> None:
    """With and without brackets."""
    assert ask(tmp_path, "cidr", "[2001:db8::]/32 A\n", "2001:db8::9") == "A"
    assert ask(tmp_path, "cidr", "2001:db8::/32 A\n", "2001:db9::9") is None
    assert ask(tmp_path, "cidr", "!10.0.0.0/8 A\n::1 B\n", "::1") == "B"  # what is not 10.* is IPv4


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("10.1.2.3/8 OK", 'perhaps you should use "10.0.0.0/8" instead'),
        ("10.1.2 OK", "bad address pattern"),
        ("10.0.0.0/33 OK", "bad address pattern"),
        ("10.0.0.0/8", "missing result"),
        ("if 10.0.0.0/8", "if without endif"),
        ("endif", "endif without if"),
        ("if 10.0.0.0/8 OK\nendif", "text after the pattern"),
    ],
)
def test_a_bad_rule_is_an_error_for_what_reaches_it(tmp_path: Path, rule: str, problem: str) -> None:
    """F57: a rule that cannot be read may have been a REJECT; rules before it serve."""
    text = f"192.0.2.1 OK\n{rule}\n"
    assert ask(tmp_path, "cidr", text, "192.0.2.1") == "OK"
    with pytest.raises(TableError, match=re.escape(problem)) as caught:
        ask(tmp_path, "cidr", text, "10.1.2.3")
    assert f"{tmp_path}/t:2" in str(caught.value)


REGEXP = r"""
/^to: *spam@/        REJECT
!/^subject:/         DUNNO other
if /confidential/
/(\w+)@(example)\.org/  INFO $1 at ${2}$(2) costs $$5
/[[:digit:]]{3}/     WARN digits
endif
/^Subject: case/i    HOLD
/^subject:.*\/x$/    DISCARD
"""


@pytest.mark.parametrize(
    ("key", "result"),
    [
        ("To: SPAM@here", "REJECT"),
        ("From: x", "DUNNO other"),
        ("Subject: Confidential from bob@example.org", "INFO bob at exampleexample costs $5"),
        ("Subject: confidential 123", "WARN digits"),
        ("Subject: case", "HOLD"),
        ("subject: case", None),
        ("Subject: a/x", "DISCARD"),
        ("Subject: confidential", None),
    ],
)
@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_expressions(tmp_path: Path, kind: str, key: str, result: str | None) -> None:
    """Flags, negation, if and endif, $1. regexp_table(5), pcre_table(5)."""
    text = REGEXP if kind == "regexp" else REGEXP.replace("[[:digit:]]", r"\d")
    assert ask(tmp_path, kind, text, key) == result


def test_multi_line_keys(tmp_path: Path) -> None:
    """A folded header field is one key: `.` matches its line break, `m` turns that off."""
    assert ask(tmp_path, "regexp", "/^a.b/ X\n", "a\nb") == "X"
    assert ask(tmp_path, "regexp", "/^b/ X\n", "a\nb") is None
    assert ask(tmp_path, "regexp", "/^b/m X\n", "a\nb") == "X"


@pytest.mark.parametrize(
    "rule",
    ["/a", "abc X", "/(/ X", "/a/q X", "/a/ $1", "!/(a)/ $1", "/[[:nope:]]/ X", "/a/ cost $ 5", "/[a/ X"],
)
def test_bad_expressions(tmp_path: Path, rule: str) -> None:
    """An error with the line, not a miss."""
    with pytest.raises(TableError, match=f"{tmp_path}/t:1"):
        ask(tmp_path, "regexp", rule + "\n", "zzz")


def test_no_substitution_in_alias_maps(tmp_path: Path) -> None:
    """What a stranger wrote may not become a command or a file name."""
    (tmp_path / "t").write_text("/(.*)/ |/bin/$1\n")
    with pytest.raises(TableError, match="substitution is not allowed"):
        TableOpener().aliases(f"regexp:{tmp_path}/t").find("x")


@pytest.mark.parametrize(
    ("posix", "text", "matches"),
    [
        ("[]a]", "]", True),
        ("[^]a]", "]", False),
        ("[[:alpha:]_-]", "-", True),
        (r"[\d]", "\\", True),
        (r"[\d]", "5", False),
        (r"\<word\>", "a word b", True),
        (r"\<word\>", "swords", False),
        ("a{2}b+c?(d|e)", "aabbe", True),
    ],
)
def test_posix_expressions(posix: str, text: str, matches: bool) -> None:
    """Bracket expressions and word ends mean what POSIX says."""
    assert (re.search(posix_to_python(posix), text) is not None) == matches


@given(st.text(max_size=40))
@example("\xa0")
@example("!")
def test_any_rule_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Nothing that an administrator writes makes the server fail in another way."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for kind in ("regexp", "pcre", "cidr"):
        try:
            open_table(f"{kind}:{path}").find("10.0.0.1")
        except TableError:
            pass


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_networks_come_back(address: int, length: int) -> None:
    """Text to network to text."""
    import ipaddress

    network = ipaddress.ip_network((address, length), strict=False)
    assert str(parse_network(str(network))) == str(network)


def test_pattern_tables_are_asked_once_with_the_whole_key(tmp_path: Path) -> None:
    """access(5): no parts of a name are tried on a pattern."""
    (tmp_path / "t").write_text("/^example\\.org$/ REJECT\n")
    table = open_table(f"regexp:{tmp_path}/t")
    assert first_entry([table], ["mail.example.org", "example.org"]) is None
    assert first_entry([table], ["example.org"]) is not None
