"""`twistd mailserver`, as Twisted's own command line finds and starts it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

from setuptools import find_namespace_packages

ROOT = Path(__file__).parent.parent


def twistd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    return subprocess.run(
        [sys.executable, "-c", program, "-n", "--pidfile=", "mailserver", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=60,
        check=False,
    )


def test_help_is_complete() -> None:
    """The plugin is found, and its help has the option and an example."""
    done = twistd("--help")
    assert done.returncode == 0
    assert "-c, --config=" in done.stdout
    assert "example:" in done.stdout


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    """What, where, and how to fix it; exit status 1; no traceback."""
    done = twistd("-c", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"mailserver: fatal: {tmp_path}/nowhere/main.cf: No such file or directory")
    assert "Traceback" not in done.stderr


def test_mail_config_names_the_directory(tmp_path: Path) -> None:
    """MAIL_CONFIG is honoured where -c is not given."""
    done = twistd(MAIL_CONFIG=str(tmp_path / "elsewhere"))
    assert f"{tmp_path}/elsewhere/main.cf" in done.stderr


def test_the_plugin_is_installed_with_the_package() -> None:
    """A plain `pip install .` brings twisted/plugins, and nothing of Twisted's own."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options.packages.find"]["include"].split()
    found = find_namespace_packages(str(ROOT), include=wanted)
    assert "twisted.plugins" in found and "twisted" not in found
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()
