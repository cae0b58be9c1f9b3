"""Several milters, one after the other: the first that refuses decides, each sees what others changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailserver.milter.connection import Connect
from mailserver.milter.content import MilterContent
from mailserver.milter.rules import MilterRules, Verdict
from mailserver.milter.session import MilterSession, Values
from mailserver.threads import Threads


class MilterChain:
    """The milters of one SMTP session, in the order of main.cf; see `MilterSession` for the methods."""

    def __init__(
        self, rules: Sequence[MilterRules], connect: Connect, values: Values, warn: Callable[[str], None]
    ) -> None:
        self._milters = [MilterSession(each, connect, values, warn) for each in rules]

    async def connected(self, name: str, address: str, port: int) -> Verdict:
        """See `MilterSession.connected`."""
        for each in self._milters:
            if (verdict := await each.connected(name, address, port)) is not None:
                return verdict
        return None

    async def command(self, command: bytes, *texts: str | bytes) -> Verdict:
        """See `MilterSession.command`."""
        for each in self._milters:
            if (verdict := await each.command(command, *texts)) is not None:
                return verdict
        return None

    async def content(self, content: MilterContent, threads: Threads) -> Verdict:
        """See `MilterSession.content`."""
        for each in self._milters:
            if (verdict := await each.content(content, threads)) is not None:
                return verdict
        return None

    def forget_message(self) -> None:
        """See `MilterSession.forget_message`."""
        for each in self._milters:
            each.forget_message()

    def close(self) -> None:
        """See `MilterSession.close`."""
        for each in self._milters:
            each.close()
