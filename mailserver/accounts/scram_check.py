"""Whether a SCRAM proof is right, over accounts whose passwords are stored in whatever scheme.

An account stored as `{SCRAM-SHA-256}` brings its verifier. Any other gets one when its password is
next seen (PLAIN, LOGIN), which counts until the stored password changes. Its salt is a keyed digest of the
name, and so is the one that is shown for unknown names and for accounts that have no verifier yet: the
challenge tells nobody who exists, and stays the same (RFC 5802 §5.1, RELIABILITY B14).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Final

from mailserver.accounts.account import NOWHERE, Account, Origin, TemporaryAccountFailure
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.login_database import LoginDatabase
from mailserver.accounts.names import login_name, spellings
from mailserver.accounts.scram import (
    ITERATIONS,
    SALT_OCTETS,
    Challenge,
    Proof,
    Verifier,
    make_verifier,
    read_verifier,
)
from mailserver.accounts.source import Credential

# Nobody's: no proof fits.
_NO_KEY: Final = bytes(32)
_NOBODYS: Final = str(Verifier(Challenge(bytes(SALT_OCTETS), ITERATIONS), _NO_KEY, _NO_KEY))


class ScramCheck:
    """Challenges and proofs. Safe in threads; *blocking*, for some ten microseconds and a look into a file.

    Salts come from the secret in the data base.
    """

    def __init__(
        self,
        check: SourcePasswordCheck,
        database: LoginDatabase,
        warn: Callable[[str], None],
        local_domains: Iterable[str] = (),
        iterations: int = ITERATIONS,
    ) -> None:
        self._check = check
        self._database = database
        self._warn = warn
        self._local_domains = frozenset(domain.lower() for domain in local_domains)
        self._iterations = iterations

    def credential(self, name: str) -> Credential | None:
        """See `SourcePasswordCheck.credential`."""
        return self._check.credential(name)

    def challenge(self, name: str) -> Challenge:
        """What the client of that name is told, whether there is such an account or not.

        Raises TemporaryAccountFailure.
        """
        return self._verifier(name, self._check.credential(name)).challenge

    def verify(self, name: str, proof: Proof, origin: Origin = NOWHERE) -> tuple[Account, bytes] | None:
        """The account and our signature, where the proof is right and the account may log in; else None.

        Raises TemporaryAccountFailure.
        """
        credential = self._check.credential(name)
        verifier = self._verifier(name, credential)
        signature = verifier.signature(proof)
        if credential is None:
            return None
        if signature is None or not self._check.takes_password_of(credential):
            signature = self._by_app_password(credential, verifier.challenge, proof, origin)
        return None if signature is None else (credential.account, signature)

    def _by_app_password(
        self, credential: Credential, challenge: Challenge, proof: Proof, origin: Origin
    ) -> bytes | None:
        known, account = self._check.app_passwords, credential.account
        signature = known.signature(account, challenge, proof, origin) if known is not None else None
        return signature if signature and self._check.is_open(credential, origin) else None

    def enrol(self, credential: Credential, password: bytes) -> Credential:
        """The account has a verifier of this password, which was found right; or the log says why not."""
        if read_verifier(credential.stored) is not None:
            return credential
        name, digest = credential.name, _digest(credential.stored)
        try:
            if self._database.verifier(name, digest) is None:
                verifier = make_verifier(password, self._own_challenge(name))
                self._database.keep_verifier(name, digest, str(verifier))
        except ValueError:
            pass  # no text that SASLprep knows: this password works by PLAIN only
        except TemporaryAccountFailure as failure:
            self._warn(f"no SCRAM verifier kept for {name}: {failure}")
        return credential

    def challenge_of(self, credential: Credential) -> Challenge:
        """What clients of that account are shown."""
        own = read_verifier(credential.stored)
        return self._own_challenge(credential.name) if own is None else own.challenge

    def _verifier(self, name: str, credential: Credential | None) -> Verifier:
        """The account's verifier, else nobody's. It takes the same steps, and as long, for every name."""
        nobodys = self._nobodys(name)
        may_login = credential is not None and credential.account.may_login
        known, stored = (credential.name, credential.stored) if credential and may_login else ("", "")
        own = Verifier(self._own_challenge(known or name), _NO_KEY, _NO_KEY)
        kept = self._database.verifier(known, _digest(stored))
        enrolled = read_verifier(kept or _NOBODYS)
        if credential is None:
            return nobodys
        return read_verifier(stored) or (enrolled if kept else None) or own

    def _nobodys(self, name: str) -> Verifier:
        """One that looks like somebody's; where passwords of accounts are verifiers, like one of those."""
        borrowed = read_verifier(self._check.borrowed(self._salt(name)))
        if borrowed is None:
            return Verifier(self._own_challenge(name), _NO_KEY, _NO_KEY)
        like = borrowed.challenge
        likeness = Challenge(self._salt(name)[: len(like.salt)], like.iterations)
        return Verifier(likeness, _NO_KEY, _NO_KEY)

    def _own_challenge(self, name: str) -> Challenge:
        return Challenge(self._salt(name)[:SALT_OCTETS], self._iterations)

    def _salt(self, name: str) -> bytes:
        """The same for every spelling of a name."""
        lowered = login_name(name)
        one = name if lowered is None else spellings(lowered, self._local_domains)[-1]
        return hmac.digest(
            self._database.secret(), b"scram salt\0" + one.encode("utf-8", "replace"), "sha256"
        )


def _digest(stored: str) -> bytes:
    return hashlib.sha256(stored.encode("utf-8", "surrogateescape")).digest()
