"""`Logins` in this process, where all mail has one owner: no helper, no session host.

Hashes are computed in threads; answers are held back by the clock. Success and failure lines
are the services' to write; faults of the account data base are logged here, as `auth`.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.accounts.verdict import Judge
from mailserver.threads import Threads


class LocalLogins:
    """`Logins` over a `Judge`. `clock` is the reactor, or a `Clock` in tests."""

    def __init__(self, judge: Judge, threads: Threads, clock: IReactorTime) -> None:
        self._judge = judge
        self._threads = threads
        self._clock = clock

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """See `Logins.login`."""
        return Deferred.fromCoroutine(self._login(attempt))

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """See `Logins.challenge`."""
        return self._threads.run(self._judge.challenge, name)

    async def _login(self, attempt: Attempt) -> Granted | Refused:
        verdict = await self._threads.run(self._judge.judge, attempt)
        if verdict.delay > 0:
            await deferLater(self._clock, verdict.delay, lambda: None)
        answer = verdict.answer
        return Granted(answer, signature=verdict.signature) if isinstance(answer, Account) else answer
