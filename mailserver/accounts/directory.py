"""Several sources of accounts as one directory: the first source that knows a name answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mailserver.accounts.account import Account
from mailserver.accounts.source import AccountSource, Credential


class SourceDirectory:
    """An `AccountDirectory` over sources in order. A source that fails is not passed over."""

    def __init__(self, sources: Sequence[AccountSource]) -> None:
        self.sources = tuple(sources)

    def lookup(self, name: str) -> Account | None:
        """See `AccountDirectory.lookup`."""
        found = (source.lookup(name) for source in self.sources)
        return next((account for account in found if account is not None), None)

    def credential(self, name: str) -> Credential | None:
        """The credential from the first source that knows the name. Raises TemporaryAccountFailure."""
        found = (source.credential(name) for source in self.sources)
        return next((credential for credential in found if credential is not None), None)

    def names(self) -> Iterator[str]:
        """See `AccountDirectory.names`; a name that two sources have is given once."""
        return iter(dict.fromkeys(name for source in self.sources for name in source.names()))
