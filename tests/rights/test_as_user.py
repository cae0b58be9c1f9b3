"""Becoming a user, and the directory that an account gets. The tree's tests show the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.rights.as_user import Identity, RightsError, become, become_confined
from mailserver.rights.supervisor import fork_child
from mailserver.rights.zygote import make_state_directory

ALICE = Identity("alice", 64001, 64001)


def in_a_child(function: Callable[[], None]) -> int:
    """The exit status of a process that runs it: 0 where it returned."""
    return os.waitstatus_to_exitcode(os.waitpid(fork_child(function, lambda: None), 0)[1])


@pytest.mark.parametrize(
    "identity", [Identity("r", 0, 1), Identity("r", 1, 0), Identity("r", 1, 1, (0,)), Identity("r", -1, 5)]
)
def test_root_is_nobody_to_become(identity: Identity) -> None:
    """B6; not in part either. Uid -1 would mean "unchanged" to setresuid(2)."""

    def tries() -> None:
        with pytest.raises(RightsError):
            become(identity)

    assert in_a_child(tries) == 0


@pytest.mark.needs("root")
def test_no_way_leads_back() -> None:
    """Nor to anybody else, nor to other groups."""

    def tries() -> None:
        become_confined(Identity("alice", 64001, 64001, (64777,)))
        assert os.getgroups() == [64777]
        for regain in (
            lambda: os.setuid(0),
            lambda: os.seteuid(0),
            lambda: os.setresuid(64002, 64002, 64002),
            lambda: os.setgroups([64778]),
            lambda: os.kill(1, 0),
        ):
            with pytest.raises(PermissionError):
                regain()
        with pytest.raises(RightsError):
            become(Identity("bob", 64002, 64002))

    assert in_a_child(tries) == 0


@pytest.mark.needs("root")
def test_an_account_gets_a_directory_of_its_own(tmp_path: Path) -> None:
    """Mode 0700, the account's; the second time it is the same."""
    for _ in range(2):
        found = os.stat(make_state_directory(str(tmp_path), ALICE))
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (64001, 64001, 0o700)


@pytest.mark.needs("root")
def test_what_lies_in_the_way_is_not_given_away(tmp_path: Path) -> None:
    """A link, a file, or another account's directory."""
    (tmp_path / "target").mkdir()
    (tmp_path / "alice").symlink_to(tmp_path / "target")
    with pytest.raises(PermissionError):
        make_state_directory(str(tmp_path), ALICE)
    assert (tmp_path / "target").stat().st_uid == 0
    (tmp_path / "alice").unlink()
    (tmp_path / "alice").mkdir()
    os.chown(tmp_path / "alice", 64002, 64002)
    with pytest.raises(PermissionError):
        make_state_directory(str(tmp_path), ALICE)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "a\0", ".x", "a\n"])
def test_a_name_that_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    """B9's rule for accounts."""
    with pytest.raises(ValueError, match="directory"):
        make_state_directory(str(tmp_path), Identity(name, 64001, 64001))
    assert os.listdir(tmp_path) == []
