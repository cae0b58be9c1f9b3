"""postalias(1) and newaliases(1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.commands.postalias import main, newaliases

TEXT = 'a: b\nc d\n# e\n"foo bar": x,y\nA: z\nempty:\nf : "|prog a b", :include:/x\nfoo@bar: x\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an alias file and a main.cf that names it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "al").write_text(TEXT)
    (tmp_path / "main.cf").write_text("alias_database = hash:$config_directory/al\n")
    return tmp_path


def test_create(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad line is warned of with its number, and the exit status is 0."""
    assert main(["hash:al"]) == 0
    assert capsys.readouterr().err == (
        "postalias: warning: al, line 2: need name:value pair\n"
        "postalias: warning: al, line 6: need name:value pair\n"
        "postalias: warning: al, line 8: name must be local\n"
        'postalias: warning: al.lmdb: duplicate entry: "a"\n'
    )
    assert main(["-s", "hash:al"]) == 0
    assert capsys.readouterr().out == 'a:\tb\nf:\t"|prog a b", :include:/x\nfoo bar:\tx,y\n'
    assert main(["-q", "Foo Bar", "hash:al"]) == 0
    assert main(["-q", "nobody", "hash:al"]) == 1


def test_fatal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file."""
    assert main(["/absent"]) == 1
    assert capsys.readouterr().err == "postalias: fatal: open /absent: No such file or directory\n"


def test_newaliases(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of alias_database, or those of -oA."""
    assert newaliases(["-C", str(here)]) == 0
    assert (here / "al.lmdb").exists()
    (here / "al.lmdb").unlink()
    monkeypatch.setenv("MAIL_CONFIG", str(here))
    assert newaliases([]) == 0
    assert (here / "al.lmdb").exists()
    (here / "other").write_text("x: y\n")
    assert newaliases(["-oAhash:other"]) == 0
    assert (here / "other.lmdb").exists()
    assert newaliases(["-C", "/nonexistent/main.cf"]) == 1
    assert newaliases(["--nonsense"]) == 1
    assert newaliases(["--help"]) == 0
    assert "example:\n  newaliases" in capsys.readouterr().out
