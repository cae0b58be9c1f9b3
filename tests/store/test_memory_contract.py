"""The contract's suite over the store in memory that the services are tested with."""

from __future__ import annotations

import pytest

from mailserver.store.contract import Uid
from tests.store.contract_suite import AccountStoreContract, MailboxContract
from tests.store_memory import MemoryAccountStore


class MemoryHarness:
    """Over memory: there is no restart."""

    def __init__(self) -> None:
        self.store = MemoryAccountStore()

    def deliver(self, content: bytes) -> None:
        self.store.inbox.deliver(content)

    def vanish(self, uid: Uid) -> None:
        self.store.inbox.vanish(uid)


class TestMemory(MailboxContract, AccountStoreContract):
    """The same tests as for files."""

    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
