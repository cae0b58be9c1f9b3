"""The sessions that the zygote serves to itself: both kinds of mailbox, whole, and nothing left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REHEARSE = """
import json, os, sys, threading
from mailserver.config.config import Config
from mailserver.config.syntax import Setting
from mailserver.roles import quiet_log
from mailserver.roles.rehearsal import rehearse
quiet_log.begin_logging()
directory, *settings = sys.argv[1:]
pairs = zip(settings[::2], settings[1::2])
config = Config(directory, {name: Setting(name, value, "test") for name, value in pairs})
log = rehearse(config, f"{directory}/rehearsal")
before = set(sys.modules)
rehearse(config, f"{directory}/rehearsal")
numbers = [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]
print(json.dumps({
    "log": log,
    "threads": threading.active_count(),
    "imported later": sorted(set(sys.modules) - before),
    "open": [os.readlink(f"/proc/self/fd/{n}") for n in numbers],
}))
"""


def rehearsed(directory: Path, *settings: str) -> Any:
    """What a process that rehearses says of it."""
    done = subprocess.run(
        [sys.executable, "-c", REHEARSE, str(directory), *settings],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("location", ["maildir:~/Maildir", "mbox:~/mail:INBOX=/var/mail/%u"])
def test_both_sessions_are_served_to_their_end(tmp_path: Path, location: str) -> None:
    """Each logs out in order, having fetched and expunged; a second one imports nothing more, and no file,
    thread or descriptor of the mailbox is left for what is forked from here.
    """
    found = rehearsed(tmp_path, "mail_location", location)
    (first, imap), (second, pop3) = found["log"]
    assert first.startswith("imap(rehearsal)") and "Logged out" in imap and "deleted=1 expunged=1" in imap
    assert second.startswith("pop3(rehearsal)") and "Logged out" in pop3 and "retr=1/" in pop3
    assert found["imported later"] == []
    assert os.listdir(tmp_path) == []
    assert found["threads"] == 1
    assert not [path for path in found["open"] if str(tmp_path) in path]


def test_the_administrators_configuration_counts_for_nothing_but_the_format(tmp_path: Path) -> None:
    """Quotas refuse no mail and run no command, and public namespaces are not looked at, as root."""
    (tmp_path / "public").mkdir()
    found = rehearsed(
        tmp_path,
        "mail_location", "maildir:~/Maildir",
        "quota_rule", "*:storage=1B",
        "quota_warning", f"storage=1%% touch {tmp_path}/warned",
        "public_namespaces", f"Public/=maildir:{tmp_path}/public",
        "acl", f"vfile:{tmp_path}/missing",
    )  # fmt: skip
    assert "deleted=1 expunged=1" in found["log"][0][1]
    assert os.listdir(tmp_path) == ["public"] and os.listdir(tmp_path / "public") == []
