"""SCRAM verifiers: what is stored, who gets one, and that nobody learns who has an account."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
from pathlib import Path

import pytest

from mailserver.accounts import hashing
from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.login_database import LoginDatabase
from mailserver.accounts.scram import Challenge, Proof, make_verifier, read_verifier
from mailserver.accounts.scram_check import ScramCheck
from tests.accounts.sample import stored, write_users

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
NONCE = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" + NONCE
)
PROOF = Proof(MESSAGE, base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
SIGNATURE = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
# `doveadm pw -s SCRAM-SHA-256 -p secret`, Dovecot 2.3.19.
DOVECOTS = (
    "{SCRAM-SHA-256}4096,1a6bUeo1se6biGcvA+zQUQ==,VfPQv2aw3v24h3Vo2f0i0NEBUnfEu7CY1tr9A2C3jy8=,"
    "1hKbY2d0P73Y1lDTTr5dRLUxjZb771Zfjg37rp0cCgQ="
)


class Scene:
    """Accounts in a passwd-file, a data base of verifiers, and the checks over both."""

    def __init__(self, directory: Path, *lines: str) -> None:
        self.path = directory / "users"
        source = write_users(self.path, *lines)
        self.warnings: list[str] = []
        self.database = LoginDatabase(str(directory / "auth" / "logins.db"))
        self.check = SourcePasswordCheck(SourceDirectory([source]), ["example.org"])
        self.scram = ScramCheck(self.check, self.database, self.warnings.append, ["example.org"], 4096)
        self.check.after_login.append(self.scram.enrol)

    def proves(self, name: str, password: str) -> bool:
        """Whether a client with that password is let in; its proof is made from its challenge."""
        message = b"whatever was said"
        salted = make_verifier(password.encode(), self.scram.challenge(name))
        return self.scram.verify(name, proof_of(password, salted.challenge, message)) is not None


def proof_of(password: str, challenge: Challenge, message: bytes) -> Proof:
    """What a client sends. RFC 5802 §3."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), challenge.salt, challenge.iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    mask = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    return Proof(message, bytes(a ^ b for a, b in zip(client_key, mask, strict=True)))


def test_the_example_of_the_rfc() -> None:
    """RFC 7677 §3: the proof is right, and our signature is the one shown there."""
    verifier = make_verifier(b"pencil", Challenge(SALT, 4096))
    assert verifier.signature(PROOF) == SIGNATURE
    for wrong in (PROOF.client_proof[:-1], PROOF.client_proof[:-1] + b"\0", b"", PROOF.client_proof + b"\0"):
        assert verifier.signature(Proof(MESSAGE, wrong)) is None
    assert verifier.signature(Proof(MESSAGE + b"x", PROOF.client_proof)) is None


def test_what_dovecot_stored_is_read_and_written_the_same() -> None:
    """Octet for octet, and it is the verifier of the password."""
    verifier = read_verifier(DOVECOTS)
    assert verifier is not None and str(verifier) == DOVECOTS
    assert make_verifier(b"secret", verifier.challenge) == verifier
    assert hashing.verify(DOVECOTS, b"secret") and not hashing.verify(DOVECOTS, b"Secret")


@pytest.mark.needs("doveadm")
def test_dovecot_takes_what_we_store() -> None:
    """`doveadm pw -t`."""
    ours = str(make_verifier(b"secret", Challenge(SALT, 4096)))
    done = subprocess.run(
        ["doveadm", "pw", "-t", ours, "-p", "secret"], capture_output=True, text=True, timeout=60
    )
    assert "(verified)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "text", ["", "x", "1,2", "0,AA==,AA==,AA==", "4096,!,AA==,AA==", "-1,,,", "9" * 5000]
)
def test_a_malformed_verifier_is_none(text: str) -> None:
    """And then nobody can prove anything."""
    assert read_verifier("{SCRAM-SHA-256}" + text) is None


@pytest.mark.parametrize(("typed", "stored_as"), [("I\u00adX", "IX"), ("\u2168", "IX"), ("a\u00a0b", "a b")])
def test_saslprep(typed: str, stored_as: str) -> None:
    """RFC 4013 §3: spellings of one password have one verifier."""
    challenge = Challenge(SALT, 1)
    assert make_verifier(typed.encode(), challenge) == make_verifier(stored_as.encode(), challenge)
    for impossible in (b"\xff", b"\x07", "\u00ad".encode()):
        with pytest.raises(ValueError):
            make_verifier(impossible, challenge)


def test_a_verifier_comes_with_the_password_and_goes_with_it(tmp_path: Path) -> None:
    """Enrolled at a PLAIN login, in whatever scheme the password is stored; gone when it is changed."""
    scene = Scene(tmp_path, f"alice:{stored('right')}")
    assert not scene.proves("alice", "right")
    assert scene.check.verify("alice", b"wrong") is None and not scene.proves("alice", "right")
    assert scene.check.verify("Alice@example.org", b"right")
    for name in ("alice", "ALICE", "alice@example.org"):
        assert scene.proves(name, "right") and not scene.proves(name, "wrong"), name
    write_users(scene.path, f"alice:{stored('newer')}", "# longer")
    assert not scene.proves("alice", "right") and not scene.proves("alice", "newer")
    assert scene.check.verify("alice", b"newer") and scene.proves("alice", "newer")
    write_users(scene.path, f"alice:!{stored('newer')}", "# longer still")
    assert not scene.proves("alice", "newer")
    assert not scene.warnings


def test_verifiers_of_a_passwd_file_need_no_password(tmp_path: Path) -> None:
    """`doveadm pw`'s; nologin counts for them."""
    scene = Scene(tmp_path, f"alice:{DOVECOTS}", f"barred:{DOVECOTS}::::::nologin")
    assert scene.proves("alice", "secret") and not scene.proves("alice", "x")
    assert not scene.proves("barred", "secret")
    assert scene.check.verify("alice", b"secret")


def test_a_challenge_does_not_tell_who_exists(tmp_path: Path) -> None:
    """B14: it is the same before and after the enrolment, after a restart, for every spelling of a name."""
    scene = Scene(tmp_path, f"alice:{stored('right')}")
    names = ("alice", "alice@example.org", "nobody", "nobody@example.org", "../x", "\ud800", "é")
    before = [scene.scram.challenge(name) for name in names]
    assert {(len(each.salt), each.iterations) for each in before} == {(16, 4096)}
    assert before[0] == before[1] and before[2] == before[3] and len(set(before)) == 5
    assert scene.check.verify("alice", b"right")
    assert [scene.scram.challenge(name) for name in names] == before
    scene.database.close()
    again = Scene(tmp_path, f"alice:{stored('right')}")
    assert [again.scram.challenge(name) for name in names] == before


def test_unknown_names_look_like_the_accounts_that_there_are(tmp_path: Path) -> None:
    """Where the passwd-file has Dovecot's verifiers, strangers are shown their number of iterations too."""
    scene = Scene(tmp_path, f"alice:{DOVECOTS.replace('4096', '5000')}")
    assert scene.scram.challenge("nobody").iterations == scene.scram.challenge("alice").iterations == 5000
    assert len(scene.scram.challenge("nobody").salt) == 16


def test_a_password_that_is_no_text_works_by_plain_only(tmp_path: Path) -> None:
    """It has no verifier, and that is no error."""
    scene = Scene(tmp_path, f"alice:{hashing.hash_password(bytes([255]), 1000)}")
    assert scene.check.verify("alice", b"\xff")
    assert not scene.warnings


def test_a_data_base_that_cannot_be_used_costs_no_login(tmp_path: Path) -> None:
    """P5: a login by password works on, with a warning; SCRAM is a temporary failure."""
    (tmp_path / "auth").mkdir(mode=0o777)
    os.chmod(tmp_path / "auth", 0o777)
    scene = Scene(tmp_path, f"alice:{stored('right')}")
    assert scene.check.verify("alice", b"right")
    assert len(scene.warnings) == 1 and "mode 0700" in scene.warnings[0]
    with pytest.raises(TemporaryAccountFailure):
        scene.scram.challenge("alice")


def test_the_data_base_is_its_owners_alone(tmp_path: Path) -> None:
    """The directory, and every file that SQLite makes there."""
    scene = Scene(tmp_path, f"alice:{stored('right')}")
    assert scene.check.verify("alice", b"right")
    assert (tmp_path / "auth").stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "auth").iterdir()}
    assert modes == {0o600}
