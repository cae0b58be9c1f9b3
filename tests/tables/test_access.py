"""Which keys are looked up, and in which order. access(5), virtual(5), transport(5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.tables import access
from mailserver.tables.lists import DomainList, NetworkList, StringList, read_items
from mailserver.tables.open import open_table
from mailserver.tables.table import TableError


def test_client_names() -> None:
    """The name, then its parents, with and without the leading dot."""
    assert list(access.domain_keys("A.b.Example.")) == [
        "a.b.example",
        "b.example",
        ".b.example",
        "example",
        ".example",
    ]
    assert list(access.domain_keys("a.b.example", False)) == ["a.b.example", ".b.example", ".example"]


@pytest.mark.parametrize(
    ("address", "keys"),
    [
        ("1.2.3.4", ["1.2.3.4", "1.2.3", "1.2", "1"]),
        ("2001:DB8:0:0:0:0:0:1", ["2001:db8::1", "2001:db8", "2001"]),
        ("::1", ["::1"]),
        ("unknown", ["unknown"]),
    ],
)
def test_client_addresses(address: str, keys: list[str]) -> None:
    """IPv6 in its compressed form, cut at the colons."""
    assert list(access.client_address_keys(address)) == keys


def test_mail_addresses() -> None:
    """With the extension, without, the domain and its parents, user@."""
    assert list(access.mail_address_keys("user+foo@a.example", "+", False)) == [
        "user+foo@a.example",
        "user@a.example",
        "a.example",
        ".example",
        "user+foo@",
        "user@",
    ]
    assert list(access.mail_address_keys("")) == ["<>"]
    assert list(access.mail_address_keys("postmaster", "+")) == ["postmaster@"]


def test_the_seeds_access_file(tmp_path: Path) -> None:
    """10.1.1 OK, .hxz.ass OK, 192.168.1 REJECT do what they say."""
    path = tmp_path / "access"
    path.write_text("10.1.1          OK\n.hxz.ass        OK\n192.168.1       REJECT\n")
    tables = [open_table(f"hash:{path}")]

    def verdict(name: str, address: str) -> str | None:
        keys = [*access.domain_keys(name), *access.client_address_keys(address)]
        entry = access.first_entry(tables, keys)
        return None if entry is None else f"{entry.value} {entry.source.rpartition(':')[2]}"

    assert verdict("unknown", "10.1.1.7") == "OK 1"
    assert verdict("pc.hxz.ass", "203.0.113.9") == "OK 2"
    assert verdict("unknown", "192.168.1.77") == "REJECT 3"
    assert verdict("unknown", "192.168.2.77") is None


def items(text: str, directory: Path) -> list:  # type: ignore[type-arg]
    return read_items(text.replace(",", " ").split(), open_table, "main.cf:7", str(directory))


def test_domain_lists(tmp_path: Path) -> None:
    """Left to right, the first match decides; files and tables stand in for items."""
    (tmp_path / "domains").write_text("# ours\nfile.example, other.example\n!not.example\n")
    (tmp_path / "table").write_text("table.example x\n")
    found = DomainList(
        items(
            f"!bad.example, Example.ORG .sub.example {tmp_path}/domains hash:{tmp_path}/table .example",
            tmp_path,
        )
    )
    assert found.find("example.org") is not None
    assert found.find("mail.example.org") is None
    assert found.find("bad.example") is None
    assert found.find("sub.example") is not None  # .example at the end
    entry = found.find("file.example")
    assert entry is not None and entry.source == f"{tmp_path}/domains:2"
    assert found.find("not.example") is None
    entry = found.find("table.example")
    assert entry is not None and entry.source == f"{tmp_path}/table:1"
    parents = DomainList(items("example.org", tmp_path), parents_match_subdomains=True)
    assert parents.find("mail.example.org") is not None


def test_network_lists(tmp_path: Path) -> None:
    """mynetworks: exclusions, IPv6 in brackets, confirmed names, tables."""
    (tmp_path / "nets.cidr").write_text("198.51.100.0/24 x\n")
    networks = NetworkList(
        items(
            f"!192.168.0.1, 192.168.0.0/28, [::1]/128 [2001:db8::]/32 .in.example cidr:{tmp_path}/nets.cidr",
            tmp_path,
        )
    )
    assert networks.find("192.168.0.1") is None
    assert networks.find("192.168.0.2") is not None
    assert networks.find("192.168.0.16") is None
    assert networks.find("::1") is not None
    assert networks.find("2001:db8::7") is not None
    assert networks.find("::ffff:192.168.0.2") is not None
    assert networks.find("198.51.100.3") is not None
    assert networks.find("203.0.113.1", "pc.in.example") is not None
    assert networks.find("203.0.113.1", "unknown") is None


def test_stock_mynetworks(tmp_path: Path) -> None:
    """Debian's own line."""
    networks = NetworkList(items("127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128", tmp_path))
    assert networks.find("127.0.0.1") is not None
    assert networks.find("::ffff:127.0.0.1") is not None
    assert networks.find("128.0.0.1") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10.1.2.3/8", 'main.cf:7: non-null host address bits.*"10.0.0.0/8"'),
        ("10.0.0.0/33", "main.cf:7: bad address pattern"),
        ("[::1", "main.cf:7: bad address pattern"),
        ("10.1", "main.cf:7: bad net/mask pattern"),
        ("/nonexistent/file", "No such file"),
        ("nosuch:/table", "unsupported dictionary type"),
    ],
)
def test_bad_networks_are_errors(tmp_path: Path, text: str, problem: str) -> None:
    """A list that cannot be read lets nobody in: it stops the start."""
    with pytest.raises(TableError, match=problem):
        NetworkList(items(text, tmp_path))


def test_string_lists(tmp_path: Path) -> None:
    """Plain names, with exclusions."""
    names = StringList(items("!root Alice static:anyone", tmp_path))
    assert names.find("root") is None
    assert names.find("alice") is not None
    assert names.find("bob") is not None
