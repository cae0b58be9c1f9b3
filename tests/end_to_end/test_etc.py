"""The files for the system under etc/: systemd's own tools read them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ETC = Path(__file__).parent.parent.parent / "etc"
UNIT = ETC / "systemd" / "mailserver.service"


@pytest.mark.needs("systemd-analyze")
def test_the_unit_takes_from_root_what_mail_does_not_need() -> None:
    """RELIABILITY §8.3: an exposure of at most 3.4."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=34", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert re.search(r"Overall exposure level for mailserver\.service: [0-3]\.\d", done.stdout)


@pytest.mark.needs("systemd-analyze")
def test_the_unit_says_nothing_unknown(tmp_path: Path) -> None:
    """systemd-analyze verify, with programs that exist in the place of ours."""
    unit = tmp_path / "mailserver.service"
    unit.write_text(re.sub(r"/opt/mailserver/bin/\w+", "/bin/true", UNIT.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert "Unknown" not in done.stderr
    assert str(unit) not in done.stderr


def test_the_unit_does_not_stop_what_commands_of_users_need() -> None:
    """RELIABILITY §8.3: these stop set-gid procmail and dotlockfile, and mail in homes."""
    names = {line.partition("=")[0] for line in UNIT.read_text().splitlines() if not line.startswith("#")}
    assert not names & {"NoNewPrivileges", "RestrictSUIDSGID", "PrivateUsers", "MemoryDenyWriteExecute"}
    assert "ProtectHome=no" in UNIT.read_text()


@pytest.mark.needs("root", "systemd-sysusers")
def test_the_user_and_the_directories_are_made(tmp_path: Path) -> None:
    """sysusers.d and tmpfiles.d in a root of their own."""
    (tmp_path / "etc").mkdir()
    for kind, program in (("sysusers.d", "systemd-sysusers"), ("tmpfiles.d", "systemd-tmpfiles")):
        action = ["--create"] if kind == "tmpfiles.d" else []
        subprocess.run(
            [program, *action, f"--root={tmp_path}", str(ETC / kind / "mailserver.conf")],
            check=True,
            capture_output=True,
        )
    assert "mailserver:" in (tmp_path / "etc" / "passwd").read_text()
    queue = tmp_path / "var" / "spool" / "mailserver"
    assert queue.stat().st_uid != 0
    assert (tmp_path / "var" / "lib" / "mailserver" / "accounts").stat().st_uid == os.geteuid()


@pytest.mark.needs("root", "logrotate")
def test_logrotate_rotates_and_tells_us(tmp_path: Path) -> None:
    """The file parses, and the server is told afterwards."""
    log = tmp_path / "mailserver.log"
    log.write_text("a line\n")
    told = tmp_path / "told"
    text = (ETC / "logrotate.d" / "mailserver").read_text()
    text = text.replace("/var/log/mailserver.log", str(log)).replace("create 0640 mailserver adm", "create")
    text = re.sub(r"postrotate\n.*?endscript", f"postrotate\ntouch {told}\nendscript", text, flags=re.DOTALL)
    (tmp_path / "rules").write_text(text)
    (tmp_path / "rules").chmod(0o644)
    command = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "rules")]
    subprocess.run(command, check=True, capture_output=True)
    assert told.exists()
    assert (tmp_path / "mailserver.log.1").read_text() == "a line\n"
    assert log.read_text() == ""
