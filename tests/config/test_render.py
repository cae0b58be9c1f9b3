"""The declarations, etc/main.cf, docs/PARAMETERS.md and postconf say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.commands import postconf
from mailserver.config.declaration import Kind
from mailserver.config.defaults import COMPUTED
from mailserver.config.listeners import listeners
from mailserver.config.parameters import PARAMETERS, TOPICS, find_parameter
from mailserver.config.read import read_config
from mailserver.config.render import ROOT, rendered
from mailserver.config.syntax import parse_main
from tests.config.hosts import KnownHost, written


@pytest.mark.parametrize("name", sorted(rendered()))
def test_committed_files_are_rendered(name: str) -> None:
    """Run `python -m mailserver.config.render --write` after a change of a declaration."""
    assert (ROOT / name).read_text("utf-8") == rendered()[name]


def test_the_sample_shows_the_defaults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each commented line of etc/main.cf is what postconf -d prints."""
    written(tmp_path)
    assert postconf.main(["-c", str(tmp_path), "-d"]) == 0
    printed = dict(line.partition(" =")[::2] for line in capsys.readouterr().out.splitlines())
    text = (ROOT / "etc" / "main.cf").read_text()
    lines = "".join(line[1:] + "\n" for line in text.splitlines() if line[:1] == "#" and line[1:2].isalnum())
    settings, warnings = parse_main(lines, "etc/main.cf")
    assert warnings == []
    listed = (parameter for _, topic in TOPICS for parameter in topic)
    assert {one.name for one in settings} == {one.name for one in listed if one.kind is Kind.HONOURED}
    for setting in settings:
        if setting.name not in COMPUTED:
            assert printed[setting.name].strip() == " ".join(setting.value.split()), setting.name


def test_every_default_is_a_value_of_its_type(tmp_path: Path) -> None:
    """A default that cannot be read would stop every start."""
    lines = "".join(
        f"{name} = {parameter.default}\n" for name, parameter in PARAMETERS.items() if name not in COMPUTED
    )
    assert [warning for warning in written(tmp_path, lines).warnings if "undefined" not in warning] == []


def test_every_declaration_is_documented() -> None:
    """One sentence each, at least."""
    for parameter in PARAMETERS.values():
        assert parameter.documentation.endswith("."), parameter.name


def test_etc_starts() -> None:
    """The committed main.cf and master.cf load without a warning and open the usual ports."""
    config = read_config(str(ROOT / "etc"), {}, KnownHost())
    assert config.warnings == ()
    assert sorted({one.port for one in listeners(config)}) == [25, 110, 143, 465, 587, 993, 995]


def test_families() -> None:
    """Limits of a transport, and lmtp_ beside smtp_."""
    limit = find_parameter("x_destination_recipient_limit")
    assert limit is not None and limit.default == "$default_destination_recipient_limit"
    twin = find_parameter("lmtp_connect_timeout")
    assert twin is not None and twin.kind is Kind.HONOURED
    assert find_parameter("nonsense") is None
