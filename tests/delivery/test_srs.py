"""SRS: addresses that lead back, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.delivery.srs import LIFETIME_DAYS, Srs
from mailserver.envelope import Address

NOW = 1_795_000_000.0
SENDER = Address("Some.One+x=y", "far.test")


def srs(days: float = 0, domain: str = "example.org", secret: bytes = b"secret") -> Srs:
    """As on a later day."""
    return Srs(domain, lambda: secret, lambda: NOW + days * 86_400)


def test_there_and_back() -> None:
    """SRS0 holds the sender; whoever folds case loses nothing of what is ours."""
    forwarded = srs().forward(SENDER)
    assert forwarded.domain == "example.org"
    assert forwarded.local.startswith("SRS0=") and forwarded.local.endswith("=far.test=Some.One+x=y")
    assert srs().reverse(forwarded) == SENDER
    folded = srs().reverse(Address(forwarded.local.lower(), "EXAMPLE.org"))
    assert folded == Address("some.one+x=y", "far.test")


def test_another_forwarders_address_is_not_nested() -> None:
    """SRS1 names the first forwarder; a third one replaces the second."""
    first = srs(domain="first.test", secret=b"1").forward(SENDER)
    second = srs(domain="second.test", secret=b"2").forward(first)
    third = srs(domain="third.test", secret=b"3").forward(second)
    assert second.local.startswith("SRS1=") and third.local.count("SRS") == 1
    assert srs(domain="third.test", secret=b"3").reverse(third) == first
    assert srs(domain="second.test", secret=b"2").reverse(second) == first


@pytest.mark.parametrize(
    ("days", "is_valid"), [(LIFETIME_DAYS, True), (LIFETIME_DAYS + 1, False), (-2, False)]
)
def test_addresses_end(days: int, is_valid: bool) -> None:
    """A leaked address is of no use for ever."""
    assert (srs(days).reverse(srs().forward(SENDER)) is not None) is is_valid


@pytest.mark.parametrize(
    "local", ["SRS0", "SRS0=", "SRS0=aaaaaa=aa=far.test=x", "SRS1=aaaaaa=far.test==x", "srs0===", "alice"]
)
def test_nobody_can_invent_them(local: str) -> None:
    """Else anybody could relay through us."""
    assert srs().reverse(Address(local, "example.org")) is None
    forged = srs(secret=b"other").forward(SENDER)
    assert srs().reverse(forged) is None


@given(
    st.text(min_size=1, max_size=60).filter(
        lambda text: text.partition("=")[0].upper() not in ("SRS0", "SRS1")
    )
)
def test_any_local_part_comes_back(local: str) -> None:
    """Too long ones are left as they are."""
    sender = Address(local, "far.test")
    assert srs().reverse(srs().forward(sender)) == sender
