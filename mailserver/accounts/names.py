"""Which login names there can be, and what they are looked up as. RELIABILITY B23."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

LONGEST_NAME: Final = 255
_ALLOWED: Final = re.compile(r"[a-z0-9_][a-z0-9._-]*(@[a-z0-9]([a-z0-9._-]*[a-z0-9])?)?")


def login_name(name: str) -> str | None:
    """The name in lower case; None where no account can have it (nothing is stripped or repaired)."""
    lowered = name.lower() if name.isascii() else ""
    if len(lowered) > LONGEST_NAME or not _ALLOWED.fullmatch(lowered) or ".." in lowered:
        return None
    return lowered


def spellings(name: str, local_domains: Iterable[str]) -> tuple[str, ...]:
    """The names to look up, in order: as given, then the local part where the domain is ours."""
    local, at, domain = name.partition("@")
    if at and domain in local_domains:
        return (name, local)
    return (name,)
