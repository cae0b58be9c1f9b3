"""Edits of single fields of a passwd-file leave everything else as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.accounts.passwd_file_edit import EditError, set_extra


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("bob:{PLAIN}x:1:2::/home::a=b rule=old c", "bob:{PLAIN}x:1:2::/home::a=b rule=*:new c"),
        ("bob:{PLAIN}x:1:2::/home::maildir:~/a", "bob:{PLAIN}x:1:2::/home::maildir:~/a rule=*:new"),
        ("bob:{PLAIN}x", "bob:{PLAIN}x::::::rule=*:new"),
    ],
)
def test_an_extra_field(tmp_path: Path, line: str, made: str) -> None:
    """It takes the place of the old one, or stands behind the others; colons are no trouble there."""
    path = tmp_path / "users"
    path.write_text(f"# bob\nann:y\n{line}\n")
    path.chmod(0o640)
    set_extra(str(path), "Bob", "rule", "*:new")
    assert path.read_text() == f"# bob\nann:y\n{made}\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_set(tmp_path: Path) -> None:
    """Nothing that would make another field or line of it; nobody who is not there."""
    path = tmp_path / "users"
    path.write_text("bob:x\n")
    for name, value in (("bob", "a b"), ("bob", "a\nb"), ("ann", "a")):
        with pytest.raises(EditError):
            set_extra(str(path), name, "rule", value)
    assert path.read_text() == "bob:x\n"
    with pytest.raises(FileNotFoundError):
        set_extra(str(tmp_path / "none"), "bob", "rule", "a")
