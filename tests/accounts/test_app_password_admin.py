"""What users of the system may do with app passwords: everything with their own, nothing with others'."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.accounts import app_password_admin
from mailserver.accounts.app_password_admin import (
    NO_USER,
    NOT_PERMITTED,
    AppPasswordAdmin,
    OwnAppPasswords,
)
from mailserver.maillog import ListLog
from mailserver.rights.messages import Message
from tests.accounts.sample import stored
from tests.accounts.test_app_passwords import IMAP, House

ALICE, BOB, SERVER = [user for user in pwd.getpwall() if 0 < user.pw_uid < 500][:3]


class Desk:
    """Users of this system have accounts; so have others with the uids of one of them and of the server."""

    def __init__(self, directory: Path, may: Callable[[int], bool] = lambda uid: True) -> None:
        rows = [
            f"{name}:{stored('main')}:{user.pw_uid}:{user.pw_gid}::/home"
            for name, user in (
                (ALICE.pw_name, ALICE),
                (BOB.pw_name, BOB),
                ("virtual", SERVER),
                ("other", BOB),
            )
        ]
        self.house, self.log = House(directory, *rows), ListLog()
        admin = AppPasswordAdmin(self.house.known, self.house.scram)
        self.own = OwnAppPasswords(admin, may, {SERVER.pw_uid}, self.log)

    def ask(self, uid: int, what: str, **values: object) -> Message:
        return self.own.handle(uid, {"ask": what, **values})

    def add(self, uid: int, name: str = "", **values: object) -> Message:
        question = {"device": "phone", "protocols": ["imap"], "expires": 0, **values}
        return self.ask(uid, "add", name=name, **question)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("name", ["", ALICE.pw_name, ALICE.pw_name.upper()])
def test_a_users_own(desk: Desk, name: str) -> None:
    """Made, listed and revoked, with the name and without it; the log has who did what."""
    made = desk.add(ALICE.pw_uid, name)
    password = str(made["password"]).encode()
    assert made["name"] == ALICE.pw_name and desk.house.check.verify(ALICE.pw_name, password, IMAP)
    (found,) = desk.ask(ALICE.pw_uid, "list", name=name)["found"]
    assert (found["device"], found["protocols"]) == ("phone", ("imap",))
    assert desk.ask(BOB.pw_uid, "list")["found"] == []
    revoked = desk.ask(ALICE.pw_uid, "revoke", name=name, device="phone")
    assert revoked == {"name": ALICE.pw_name, "revoked": 1}
    assert not desk.house.check.verify(ALICE.pw_name, password, IMAP)
    said = [text for _, text in desk.log.lines]
    assert said == [
        f"Info: {ALICE.pw_name} made app password phone for imap",
        f"Info: {ALICE.pw_name} revoked app password phone",
    ]


def test_nobody_elses(desk: Desk) -> None:
    """Whether there is such an account or not is not told, and nothing is changed."""
    desk.add(ALICE.pw_uid)
    for name in (ALICE.pw_name, "virtual", "other", "nobody-here"):
        for answer in (
            desk.add(BOB.pw_uid, name, device="x"),
            desk.ask(BOB.pw_uid, "list", name=name),
            desk.ask(BOB.pw_uid, "revoke", name=name, device=None),
        ):
            text = f"only root may do that for others than {BOB.pw_name}"
            assert answer == {"error": text, "status": NOT_PERMITTED}
    assert [each.device for each in desk.house.known.find()] == ["phone"]


def test_the_servers_own_user_has_none(desk: Desk) -> None:
    """The front runs as it, and the passwd-file's accounts have its uid: one taken over makes nobody any."""
    for name in ("", "virtual", SERVER.pw_name, ALICE.pw_name):
        assert desk.add(SERVER.pw_uid, name)["status"] == NOT_PERMITTED
    assert desk.house.known.find() == []


def test_who_is_not_allowed_to(tmp_path: Path) -> None:
    """authorized_app_password_users; and a number that nobody has."""
    desk = Desk(tmp_path, lambda uid: uid != ALICE.pw_uid)
    assert "is not allowed" in desk.add(ALICE.pw_uid)["error"]
    assert "password" in desk.add(BOB.pw_uid)
    assert "is no user" in desk.add(2**31 - 7)["error"]


def test_a_user_without_an_account(tmp_path: Path) -> None:
    """Is told so."""
    desk = Desk(tmp_path)
    other = next(
        user for user in pwd.getpwall() if user.pw_uid not in {0, *(u.pw_uid for u in (ALICE, BOB, SERVER))}
    )
    assert desk.add(other.pw_uid)["status"] == NO_USER


@pytest.mark.parametrize(
    "values",
    [
        {"device": 1},
        {"device": "x" * 256},
        {"protocols": []},
        {"protocols": ["imap", "ftp"]},
        {"protocols": ["imap"] * 4},
        {"protocols": [["imap"]]},
        {"expires": 1},
        {"expires": -1},
        {"expires": True},
        {"expires": 2.0**60},
        {"expires": 10**30},
        {"expires": None},
    ],
)
def test_what_is_no_question(desk: Desk, values: dict[str, object]) -> None:
    """Nothing is made; the channel answers."""
    with pytest.raises((ValueError, TypeError)):
        desk.add(ALICE.pw_uid, **values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown question"):
        desk.ask(ALICE.pw_uid, "anything")
    assert desk.house.known.find() == []


def test_an_account_has_so_many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user cannot make logins slow; a device that has one already is told so."""
    monkeypatch.setattr(app_password_admin, "MOST_OF_AN_ACCOUNT", 2)
    assert "password" in desk.add(ALICE.pw_uid, device="a")
    assert "already" in desk.add(ALICE.pw_uid, device="a")["error"]
    assert "password" in desk.add(ALICE.pw_uid, device="b")
    assert "no name of a device" in desk.add(BOB.pw_uid, device="ä")["error"]
    assert "revoke one" in desk.add(ALICE.pw_uid, device="c")["error"]
    assert desk.ask(ALICE.pw_uid, "revoke", device=None)["revoked"] == 2
    assert "password" in desk.add(ALICE.pw_uid, device="c")
