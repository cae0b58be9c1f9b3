"""Every fault of the specification has a test, and docs/FAULTS.md names each."""

from __future__ import annotations

from tests.fault_table import FAULTS, NOT_HERE, PAGE, cited, citing


def test_every_fault_has_a_test() -> None:
    """What no test cites is named, with the reason. RELIABILITY §5."""
    tested = {fault for fault, _, _ in citing()}
    assert set(FAULTS) - tested == set(NOT_HERE)


def test_the_page_has_every_fault() -> None:
    """`make faults` writes it."""
    page = PAGE.read_text("utf-8")
    assert [f"F{fault:02}" for fault in FAULTS if f"| F{fault:02} |" not in page] == []


def test_citations() -> None:
    """One by one, or from one to another."""
    assert cited("F03, F04-F06 and F09 to F10; FF01, F99") == {3, 4, 5, 6, 9, 10}
