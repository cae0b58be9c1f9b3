"""App passwords: what they open, what they do not, and when they stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.accounts.account import Origin
from mailserver.accounts.app_passwords import NEVER, PROTOCOLS, AppPasswordError, AppPasswords
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.login_database import LoginDatabase
from mailserver.accounts.passwd_database import PasswdEntry
from mailserver.accounts.passwd_users import ValidUids
from mailserver.accounts.scram import Challenge, make_verifier
from mailserver.accounts.scram_check import ScramCheck
from mailserver.accounts.system import SystemAccounts
from tests.accounts.sample import stored, write_users
from tests.accounts.test_scram import DOVECOTS, proof_of

IMAP = Origin("imap", "192.0.2.7")
SMTP = Origin("smtp", "192.0.2.7")


class House:
    """Accounts of a passwd-file, their app passwords, and a clock to be set."""

    def __init__(self, directory: Path, *lines: str, only: bool = False) -> None:
        self.now, self.lines = 1_000_000.0, []  # type: tuple[float, list[str]]
        self.path = directory / "users"
        self.directory = SourceDirectory([write_users(self.path, *lines)])
        self.database = LoginDatabase(str(directory / "auth" / "logins.db"))
        self.known = AppPasswords(self.database, self.lines.append, lambda: self.now)
        self.check = SourcePasswordCheck(self.directory, app_passwords=self.known, app_passwords_only=only)
        self.scram = ScramCheck(self.check, self.database, self.lines.append, iterations=4096)

    def add(
        self, name: str, device: str, protocols: tuple[str, ...] = PROTOCOLS, expires: int = NEVER
    ) -> bytes:
        """A new app password."""
        credential = self.check.credential(name)
        assert credential is not None
        challenge = self.scram.challenge_of(credential)
        return self.known.add(credential.account, device, protocols, expires, challenge).encode()

    def proves(self, name: str, password: bytes, origin: Origin) -> bool:
        """Whether a SCRAM client with that password is let in."""
        text = password.decode()
        proof = proof_of(text, self.scram.challenge(name), b"what was said")
        return self.scram.verify(name, proof, origin) is not None


def test_it_opens_its_protocols_beside_the_accounts_own_password(tmp_path: Path) -> None:
    """Each for its device; hyphens, spaces and capitals make no difference."""
    house = House(tmp_path, f"alice:{stored('main')}", f"bob:{stored('main')}")
    phone, printer = house.add("alice", "phone"), house.add("alice", "printer", ("smtp",))
    assert phone != printer and len(phone) == 24
    for spelled in (phone, phone.upper(), phone.replace(b"-", b""), phone.replace(b"-", b" ")):
        assert house.check.verify("Alice", spelled, IMAP), spelled
    assert house.check.verify("alice", b"main", IMAP)
    assert house.check.verify("alice", printer, SMTP) and house.check.verify("alice", printer, IMAP) is None
    assert house.check.verify("bob", phone, IMAP) is None
    assert house.check.verify("alice", phone) is None  # nobody knows by which protocol
    assert house.check.verify("alice", phone[:-1], IMAP) is None


def test_scram_clients_use_them_too(tmp_path: Path) -> None:
    """They prove the text as it is shown; the password itself is never seen."""
    house = House(tmp_path, f"alice:{stored('main')}", f"dave:{DOVECOTS}")
    for name in ("alice", "dave"):
        phone, printer = house.add(name, "phone"), house.add(name, "printer", ("smtp",))
        assert house.proves(name, phone, IMAP) and house.proves(name, printer, SMTP)
        assert not house.proves(name, printer, IMAP) and not house.proves(name, b"wrong", IMAP)
    assert house.proves("dave", b"secret", IMAP)


def test_revoked_and_expired_ones_open_nothing(tmp_path: Path) -> None:
    """At once; the others stay."""
    house = House(tmp_path, f"alice:{stored('main')}")
    phone, pad, desk = (
        house.add("alice", "phone"),
        house.add("alice", "pad", expires=1_000_100),
        house.add("alice", "x"),
    )
    assert house.check.verify("alice", pad, IMAP)
    house.now = 1_000_100.0
    assert house.check.verify("alice", pad, IMAP) is None and not house.proves("alice", pad, IMAP)
    assert house.known.revoke("alice", "phone") == 1 and house.known.revoke("alice", "phone") == 0
    assert house.check.verify("alice", phone, IMAP) is None and not house.proves("alice", phone, IMAP)
    assert house.check.verify("alice", desk, IMAP)
    assert house.known.revoke("alice") == 2
    assert house.check.verify("alice", desk, IMAP) is None


def test_what_closes_an_account_closes_its_devices(tmp_path: Path) -> None:
    """A locked password and nologin do; having no password does not: app passwords are good for that."""
    house = House(tmp_path, *(f"{name}:{stored('x')}" for name in ("alice", "bob", "carol", "dave")))
    phones = {name: house.add(name, "phone") for name in ("alice", "bob", "carol", "dave")}
    write_users(
        house.path,
        f"alice:!{stored('x')}",
        "bob:*",
        f"carol:{stored('x')}::::::nologin",
        "# and dave is gone",
    )
    entered = {name for name, phone in phones.items() if house.check.verify(name, phone, IMAP)}
    assert entered == {"bob"}
    assert {name for name, phone in phones.items() if house.proves(name, phone, IMAP)} == {"bob"}


@pytest.mark.parametrize(
    ("shadow", "is_open"),
    [
        ("*:20000:0:99999:7:::", True),
        ("!:20000:0:99999:7:::", True),
        ("!$6$x$y:20000:0:99999:7:::", False),  # passwd -l
        ("$6$x$y:20000:0:99999:7:::", True),
        ("*:20000:0:99999:7::20001:", False),  # expired
        ("$6$x$y:0:0:99999:7:::", False),  # must be changed first
    ],
)
def test_system_accounts(tmp_path: Path, shadow: str, is_open: bool) -> None:
    """shadow(5): locked with passwd -l, expired, or without a password (keys only)."""
    (tmp_path / "shadow").write_text(f"alice:{shadow}\n")
    uid = [1000]
    source = SystemAccounts(
        ValidUids(),
        shadow_path=str(tmp_path / "shadow"),
        find=lambda name: PasswdEntry(name, "x", uid[0], 100, "", "/home/alice", "/bin/sh"),
        clock=lambda: 20_100 * 86_400.0,
    )
    house = House(tmp_path)
    house.check = SourcePasswordCheck(SourceDirectory([source]), app_passwords=house.known)
    house.scram = ScramCheck(house.check, house.database, house.lines.append, iterations=4096)
    phone = house.add("alice", "phone")
    assert (house.check.verify("alice", phone, IMAP) is not None) == is_open
    uid[0] = 1001
    assert house.check.verify("alice", phone, IMAP) is None, "another user of that name"


def test_app_passwords_only(tmp_path: Path) -> None:
    """The account's own password lets nobody in then, by no mechanism."""
    house = House(tmp_path, f"alice:{DOVECOTS}", only=True)
    phone = house.add("alice", "phone")
    assert house.check.verify("alice", b"secret", IMAP) is None and not house.proves("alice", b"secret", IMAP)
    assert house.check.verify("alice", phone, IMAP) and house.proves("alice", phone, IMAP)


def test_its_use_is_noted_and_logged(tmp_path: Path) -> None:
    """Which device, from where; the note is made every five minutes at most."""
    house = House(tmp_path, f"alice:{stored('main')}")
    phone = house.add("alice", "phone", ("imap",))
    assert house.known.find()[0].used == 0
    assert house.check.verify("alice", phone, IMAP)
    assert house.lines == ["Info: imap(alice,192.0.2.7): app password phone is right"]
    house.now += 299
    assert house.check.verify("alice", phone, Origin("imap", "192.0.2.8"))
    (known,) = house.known.find("alice")
    assert (known.used, known.address) == (1_000_000, "imap 192.0.2.7")
    house.now += 1
    assert house.check.verify("alice", phone, Origin("imap", "192.0.2.8"))
    assert house.known.find("alice")[0].address == "imap 192.0.2.8"
    assert house.check.verify("alice", phone, SMTP) is None
    assert house.lines[-1] == "Info: smtp(alice,192.0.2.7): app password phone is good for imap only"
    assert not any(phone.decode() in line for line in house.lines)


def test_nothing_that_opens_an_account_is_in_the_data_base(tmp_path: Path) -> None:
    """Digests and verifiers only."""
    house = House(tmp_path, f"alice:{stored('main')}")
    phone = house.add("alice", "phone")
    house.database.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "auth").iterdir())
    assert b"phone" in kept and phone not in kept and phone.replace(b"-", b"") not in kept


@pytest.mark.parametrize("device", ["", "a b", "-x", "a/b", "ä", "x" * 65, "a\n"])
def test_names_of_devices(tmp_path: Path, device: str) -> None:
    """They stand in log lines and on command lines."""
    house = House(tmp_path, f"alice:{stored('main')}")
    with pytest.raises(AppPasswordError):
        house.add("alice", device)
    house.add("alice", "phone")
    with pytest.raises(AppPasswordError, match="already"):
        house.add("alice", "phone")


def test_without_any_there_is_no_file(tmp_path: Path) -> None:
    """Looking for one makes none."""
    house = House(tmp_path, f"alice:{stored('main')}")
    assert house.check.verify("alice", b"abcd-efgh-ijkl-mnop-qrst", IMAP) is None
    assert house.known.find() == [] and house.known.revoke("alice") == 0
    assert not (tmp_path / "auth").exists()


def test_a_verifier_is_of_the_shown_text() -> None:
    """SCRAM has no place to repair what was typed."""
    challenge = Challenge(b"0123456789abcdef", 1)
    assert make_verifier(b"abcd-efgh", challenge) != make_verifier(b"abcdefgh", challenge)
