"""`mailserver explain`: what stands between the one who asks and an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.root_server import interpreter


@pytest.fixture
def home() -> Iterator[Path]:
    """A configuration that everybody may read, with a passwd-file that only root may."""
    directory = Path(tempfile.mkdtemp(prefix="explain-"))
    directory.chmod(0o755)
    (directory / "main.cf").write_text(
        "myhostname = mail.example.org\nmydestination = example.org\nalias_maps =\n"
        "mail_owner = nobody\naccount_sources = passwd-file\npasswd_file = $config_directory/users\n"
    )
    (directory / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    (directory / "users").write_text("alice:{PLAIN}x:1000:1000::/home/alice::\n")
    (directory / "users").chmod(0o600)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.needs("root")
def test_what_the_asker_may_not_read_is_said(home: Path) -> None:
    """The mail would not wait: the server may read the file."""
    program, environment = interpreter()
    command = [program, "-m", "mailserver.commands.main", "-c", str(home), "explain", "alice@example.org"]
    asked = {"env": {**os.environ, **environment}, "capture_output": True, "text": True, "check": False}
    as_root = subprocess.run(command, **asked)  # type: ignore[call-overload]
    assert as_root.returncode == 0 and "alice" in as_root.stdout
    as_nobody = subprocess.run(command, user=65534, group=65534, extra_groups=(), cwd="/", **asked)  # type: ignore[call-overload]
    assert as_nobody.returncode == 1
    assert f"{home}/users: Permission denied: the server may read it, you may not" in as_nobody.stderr
