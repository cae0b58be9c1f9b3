"""Rehash on login: a passwd-file's weak password is stored anew, in today's scheme, when it is next typed.

Only where `rehash_on_login` allows it, and only what can be written: never the system's accounts, never a
file without a write bit. The edit is `mailserver user passwd`'s, under the same lock; where the line
was changed meanwhile, that change stands. Hashes that other mechanisms need (SCRAM, CRAM-MD5) are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mailserver.accounts import hashing, passwd_file_edit
from mailserver.accounts.passwd_file_edit import EditError
from mailserver.accounts.source import Credential

_WRITE_BITS: Final = 0o222


class Rehash:
    """What follows a right password. Safe in threads; *blocking*, for a hash and an fsync where it acts."""

    def __init__(self, warn: Callable[[str], None], inform: Callable[[str], None]) -> None:
        self._warn = warn
        self._inform = inform
        self._has_warned = False

    def __call__(self, credential: Credential, password: bytes) -> Credential:
        """The credential as it is stored from now on."""
        path, name = credential.file, credential.name
        if not path or not hashing.is_weak(credential.stored):
            return credential
        try:
            if not os.stat(path).st_mode & _WRITE_BITS:
                return credential
            stored = hashing.hash_password(password)
            passwd_file_edit.replace_password(path, name, credential.stored, stored)
        except EditError:
            return credential  # somebody was faster
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"{path}: {error.strerror}: weak passwords there stay as they are (rehash_on_login)"
                )
            return credential
        self._inform(f"Info: {name}: password stored anew in {path}")
        return replace(credential, stored=stored)
