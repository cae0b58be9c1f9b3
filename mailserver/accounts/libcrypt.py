"""The system's crypt(3), for the hashes that the system itself writes into /etc/shadow.

`crypt_r` is called through ctypes: it is thread-safe, runs without the interpreter's lock,
and knows yescrypt (`$y$`), which is Debian's default. Whether a method is known is found out
once per prefix with a cheap setting. Where the library is missing, nothing is known.
crypt(3), crypt(5).
"""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from typing import Final

_LIBRARIES: Final = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so")
_DATA_SIZE: Final = 131_240  # glibc's struct crypt_data, the largest of all implementations
LONGEST_PASSWORD: Final = 512  # octets; libxcrypt's CRYPT_MAX_PASSPHRASE_SIZE

_CHEAP_SETTINGS: Final = {
    "$1$": "$1$saltsalt$",
    "$2a$": "$2a$04$" + "." * 22,
    "$2b$": "$2b$04$" + "." * 22,
    "$2y$": "$2y$04$" + "." * 22,
    "$5$": "$5$rounds=1000$saltsalt$",
    "$6$": "$6$rounds=1000$saltsalt$",
    "$7$": "$7$2/..../....saltsalt$",
    "$y$": "$y$j75$saltsalt$",
    "$gy$": "$gy$j75$saltsalt$",
    "$sha1": "$sha1$1000$saltsalt$",
}


def _load() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        library.crypt_r.restype = ctypes.c_char_p
        return library
    return None


_library: Final = _load()
_scratch: Final = threading.local()


def crypt(password: bytes, setting: str) -> str | None:
    """The hash of the password under a setting or an earlier hash; None where that is impossible.

    A NUL would end the password early and a very long one is refused by the library, so
    both are impossible too.
    """
    if _library is None or b"\0" in password or len(password) > LONGEST_PASSWORD:
        return None
    try:
        data = _scratch.data
    except AttributeError:
        data = _scratch.data = ctypes.create_string_buffer(_DATA_SIZE)
    ctypes.memset(data, 0, _DATA_SIZE)
    found: bytes | None = _library.crypt_r(password, setting.encode("utf-8"), data)
    if not found or found.startswith(b"*"):
        return None
    return found.decode("ascii", "replace")


@lru_cache(maxsize=64)
def knows(prefix: str) -> bool:
    """Whether this system's crypt(3) can compute hashes that begin with `prefix` (`$6$`, `$y$`, …)."""
    setting = _CHEAP_SETTINGS.get(prefix)
    return setting is not None and crypt(b"probe", setting) is not None
