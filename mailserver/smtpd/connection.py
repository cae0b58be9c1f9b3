"""The connection, as a session sees it, so that a session knows no sockets."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

Work = Coroutine[Any, Any, None] | None  # what is still to be done; None where all is
Command = Callable[[bytes], Work]  # takes the argument


class Wire(Protocol):
    """The connection, as a session sees it: `protocol.SmtpServer`."""

    is_tls: bool
    transport: Any

    @property
    def has_waiting_input(self) -> bool:
        """Whether the client sent more than the command that is worked on."""

    @property
    def last_line_was_bare(self) -> bool:
        """Whether the command ended in a bare LF."""

    def reply(self, code: int, dsn: str, text: str) -> None:
        """The reply is on its way."""

    def reply_lines(self, code: int, lines: list[str]) -> None:
        """A reply of several lines is on its way."""

    def consume(self, consumer: Callable[[bytes], Work]) -> None:
        """What follows is content."""

    def resume_commands(self, rest: bytes) -> None:
        """What follows are commands again."""

    def start_tls(self) -> None:
        """The connection is under TLS."""

    def close(self) -> None:
        """The connection ends behind the replies."""

    def shut_down(self) -> None:
        """The session's `shut_down` is called as soon as nothing is being committed."""

    def tls_description(self) -> str:
        """Version and cipher of TLS."""
