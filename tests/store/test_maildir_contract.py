"""The contract's suite over maildirs, in both layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.contract_suite import AccountStoreContract, DurableContract, MailboxContract, NamesContract
from tests.store.harness import MaildirHarness


class TestMaildirPlusPlus(MailboxContract, AccountStoreContract, NamesContract, DurableContract):
    """Folders as `.Name`."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[MaildirHarness]:
        harness = MaildirHarness(tmp_path)
        yield harness
        harness.registry.shut()


class TestMaildirDirectories(AccountStoreContract, NamesContract, DurableContract):
    """LAYOUT=fs, INBOX in a spool of its own."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[MaildirHarness]:
        harness = MaildirHarness(tmp_path, f"maildir:~/mail:LAYOUT=fs:INBOX={tmp_path}/spool/%u")
        yield harness
        harness.registry.shut()
