"""`mailserver firewall`: what listens beyond loopback is opened, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.commands import main

ROWS = """\
127.0.0.1:2525 inet n - n - - smtpd
0.0.0.0:25     inet n - n - - smtpd
192.0.2.1:587  inet n - n - - smtpd
192.0.2.1:143  inet n - n - - imapd
[::]:25        inet n - n - - smtpd
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text("myhostname = mail.example.org\ncompatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text(ROWS)
    return tmp_path


def lines(home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What the command prints."""
    assert main.main(["-c", str(home), "firewall", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_each_firewall_opens_the_same_ports(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loopback's port 2525 is in none of them."""
    assert lines(home, capsys, "--for", "iptables", "--interface", "ens33") == [
        "iptables -A INPUT -p tcp -i ens33 -m multiport --dports 25 -j ACCEPT",
        "iptables -A INPUT -p tcp -i ens33 -d 192.0.2.1 -m multiport --dports 143,587 -j ACCEPT",
        "ip6tables -A INPUT -p tcp -i ens33 -m multiport --dports 25 -j ACCEPT",
    ]
    assert lines(home, capsys, "--for", "nft") == [
        "nft 'add rule inet filter input meta nfproto ipv4 tcp dport { 25 } accept'",
        "nft 'add rule inet filter input ip daddr 192.0.2.1 tcp dport { 143, 587 } accept'",
        "nft 'add rule inet filter input meta nfproto ipv6 tcp dport { 25 } accept'",
    ]
    assert lines(home, capsys, "--for", "ufw") == [
        "ufw allow proto tcp to any port 25",
        "ufw allow proto tcp to 192.0.2.1 port 143,587",
    ]
    firewalld = lines(home, capsys, "--for", "firewalld")
    assert firewalld[0] == "firewall-cmd --permanent --add-port=25/tcp"
    assert 'destination address="192.0.2.1" port port="587" protocol="tcp" accept' in firewalld[2]
    assert firewalld[-1] == "firewall-cmd --reload"


def test_all_of_them_are_shown_by_default(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each under its name."""
    shown = lines(home, capsys)
    assert [line for line in shown if line.startswith("#")] == ["# iptables", "# nft", "# firewalld", "# ufw"]


def test_loopback_alone_needs_no_opening(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A demo server is reached from here anyway."""
    (home / "master.cf").write_text(
        "127.0.0.1:2525 inet n - n - - smtpd\n127.0.0.1:1143 inet n - n - - imapd\n"
    )
    assert "no port needs to be opened" in "".join(lines(home, capsys))
