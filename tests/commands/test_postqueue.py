"""postqueue(1) and mailq: formats that scripts take apart, exit statuses."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailserver.commands.postqueue import main, render

REFUSED = "connect to 127.0.0.1[127.0.0.1]:2525: Connection refused"
ARRIVAL = 1_795_486_924  # Tue Nov 24 02:22:04 2026


def entry(queue_id: str, queue: str, sender: str, size: int, *recipients: tuple[str, str]) -> dict[str, Any]:
    return {
        "queue_name": queue,
        "queue_id": queue_id,
        "arrival_time": ARRIVAL,
        "message_size": size,
        "forced_expire": False,
        "sender": sender,
        "recipients": [{"address": a, **({"delay_reason": r} if r else {})} for a, r in recipients],
    }


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


GOLDEN = f"""\
-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------
A395322E2FF     262 Tue Nov 24 02:22:04  sender@example.com
                    ({REFUSED})
                                         other@example.com
                                         remote@example.net

B466F22E0CC!    2170 Tue Nov 24 02:22:04  MAILER-DAEMON
                    ({REFUSED})
                                         sender@example.com

-- 2 Kbytes in 2 Requests.
"""
WAITING = (("other@example.com", REFUSED), ("remote@example.net", REFUSED))
ENTRIES = [
    entry("B466F22E0CC", "hold", "MAILER-DAEMON", 2170, ("sender@example.com", REFUSED)),
    entry("A395322E2FF", "deferred", "sender@example.com", 262, *WAITING),
]


def test_golden() -> None:
    """ECOSYSTEM §7, measured on Postfix: held mail last, a reason once for a run of recipients."""
    assert "".join(render(ENTRIES)) == GOLDEN


def test_awk_finds_sender_and_recipient() -> None:
    """The line of postsuper(1): paragraphs, $1 the id with its mark, $7 the sender."""
    program = 'BEGIN { RS = "" } { if ($7 == "MAILER-DAEMON") print $1 }'
    listing = "".join(list(render(ENTRIES))[1:])
    found = subprocess.run(["awk", program], input=listing, capture_output=True, text=True, check=True)
    assert found.stdout == "B466F22E0CC!\n"


def test_reasons_by_recipient() -> None:
    """A new reason is printed where it changes; one that is missing is said to be."""
    mixed = entry("A1", "deferred", "s", 1, ("a", ""), ("b", "full"), ("c", "full"), ("d", ""))
    lines = "".join(render([mixed])).splitlines()[2:-2]
    blank, full, missing = " " * 41, " " * 72 + "(full)", " " * 58 + "(reason unavailable)"
    assert lines == [f"{blank}a", full, f"{blank}b", f"{blank}c", missing, f"{blank}d"]
    long = "x" * 90
    assert f"\n({long})\n" in "".join(render([entry("A1", "active", "s", 1, ("a", long))]))


@pytest.mark.parametrize(
    ("queue", "mark"), [("active", "*"), ("hold", "!"), ("incoming", ""), ("deferred", "")]
)
def test_marks(queue: str, mark: str) -> None:
    """* active, ! on hold; # to be expired, whatever else it is."""
    one = entry("A1", queue, "s", 3, ("a", ""))
    assert "".join(render([one])).splitlines()[1].split()[0] == f"A1{mark}"
    assert "".join(render([one | {"forced_expire": True}])).splitlines()[1].split()[0] == "A1#"
    assert "in 1 Request." in "".join(render([one]))


def test_long_ids() -> None:
    """enable_long_queue_ids has wider columns."""
    lines = list(render([entry("3Pt2mN2VXxznjll", "active", "s@x", 300, ("a@b", ""))], long_ids=True))
    assert lines[0] == "-Queue ID-        --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
    assert lines[1] == "3Pt2mN2VXxznjll*       300 Tue Nov 24 02:22:04 s@x\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "main.cf").write_text(
        "queue_directory = $config_directory/queue\nrelay_domains = example.com\n"
    )
    (tmp_path / "master.cf").write_text("")
    for name in ("maildrop", "incoming", "deferred", "hold"):
        (tmp_path / "queue" / name).mkdir(parents=True)
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("arguments", [[], ["-x"], ["-p", "-j"], ["-p", "extra"]])
def test_usage_is_69(home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """As Postfix's."""
    assert main(arguments) == 69
    assert "postqueue: fatal: usage: postqueue -f" in capsys.readouterr().err


def test_the_mail_system_is_down(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Listing reads the files, with a warning; flushing is 69."""
    assert main(["-p"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "Mail queue is empty\n"
    assert shown.err == "postqueue: warning: Mail system is down -- accessing queue directly\n"
    for arguments in (["-f"], ["-i", "A395322E2FF"], ["-s", "example.com"]):
        assert main(arguments) == 69
        assert capsys.readouterr().err == "postqueue: fatal: Cannot flush mail queue - mail system is down\n"


def test_a_site_that_is_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """postqueue -s is for relay_domains: 69 for others."""
    assert main(["-s", "nosuch"]) == 69
    assert 'Flush service is not configured for destination "nosuch"' in capsys.readouterr().err


def test_a_bad_id(home: Path) -> None:
    """No path gets anywhere."""
    assert main(["-i", "../x"]) == 69


def test_who_may_list(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """authorized_mailq_users counts for the files too; root always may."""
    with (home / "main.cf").open("a") as main_cf:
        main_cf.write("authorized_mailq_users = root\n")
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    assert main(["-j"]) == 77
    assert "not allowed to view the mail queue" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has an example."""
    assert main(["--help"]) == 0 and "example:" in capsys.readouterr().out
