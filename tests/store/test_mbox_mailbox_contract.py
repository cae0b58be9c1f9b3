"""The contract's suite over mboxes: INBOX in the spool, folders below ~/mail, as Debian has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.contract_suite import AccountStoreContract, DurableContract, MailboxContract, NamesContract
from tests.store.harness import MboxHarness


class TestMbox(MailboxContract, AccountStoreContract, NamesContract, DurableContract):
    """The same tests as for maildirs."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[MboxHarness]:
        harness = MboxHarness(tmp_path)
        yield harness
        harness.registry.shut()
