"""Tests in Twisted's reactor, with servers that end when the test does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase


class ReactorCase(TestCase):
    """See the module."""

    def run_test(self, test: Callable[[], Awaitable[None]]) -> Deferred[None]:
        """The test has run, for trial to wait for."""
        return ensureDeferred(test())  # type: ignore[arg-type]

    def ends_with_the_test(self, factory: Any, listening: Any) -> None:
        """At the end of the test the port is closed, and every connection of the factory's `connections`."""

        def stop() -> Any:
            for connection in factory.connections:
                connection.transport.abortConnection()
            return listening.stopListening()

        self.addCleanup(stop)
