"""Marks of secret files by way of the helper: few questions, and the last answer where there is none."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailserver.accounts.helper_client import HelperSecrets
from mailserver.rights import messages
from mailserver.rights.listeners import listen_channel


class Answering:
    """A helper that gives its answers one by one; afterwards it hangs up."""

    def __init__(self, path: str, answers: list[messages.Message]) -> None:
        self.asked = 0
        self._answers = answers
        self._listener = listen_channel(path, 0o600, os.geteuid())
        self._listener.settimeout(20)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                self.asked += 1
                messages.receive(connection)
                messages.send(connection, answer)
        self._listener.close()


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Answering]:
    yield Answering(str(tmp_path / "helper"), [{"stamp": [1, 2, 3]}, {"stamp": [1, 2, 4]}])


def test_a_mark_is_asked_for_now_and_then(tmp_path: Path, helper: Answering) -> None:
    """Every handshake wants it; the helper is not asked each time, and its end changes nothing."""
    clock = Clock()
    secrets = HelperSecrets(str(tmp_path / "helper"), clock.seconds)
    assert [secrets.stamp("/key") for _ in range(5)] == [(1, 2, 3)] * 5
    assert helper.asked == 1
    clock.advance(6)
    assert secrets.stamp("/key") == (1, 2, 4)
    clock.advance(6)
    assert secrets.stamp("/key") == (1, 2, 4)  # the helper is gone


def test_a_file_that_is_not_given_is_an_error(tmp_path: Path) -> None:
    """At the start, where there is no earlier mark."""
    Answering(str(tmp_path / "helper"), [{"error": "no such secret"}])
    with pytest.raises(OSError, match="does not see key"):
        HelperSecrets(str(tmp_path / "helper")).stamp("/a/key")
