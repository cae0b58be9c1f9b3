"""`twistd mailserver`: options, and the service that is the server, which `roles.start` makes."""

from __future__ import annotations

import gc
from typing import Any

from twisted.python import usage


class Options(usage.Options):
    """The command line of `twistd mailserver`."""

    synopsis = "[-c DIR]"
    longdesc = (
        "SMTP, POP3 and IMAP for the classic Unix mail host. DIR holds main.cf and master.cf; "
        "`mailserver init DIR` writes them.\n\n"
        "example:  twistd -n mailserver -c /etc/mailserver"
    )
    optParameters = [  # noqa: RUF012 - as Twisted wants it
        [
            "config",
            "c",
            None,
            "The directory of main.cf [default: $MAIL_CONFIG, /etc/mailserver, else /etc/postfix]",
        ],
    ]


def makeService(options: Any) -> Any:
    """The server, ready to start, its ports bound."""
    gc.disable()  # what is imported stays: to look for garbage in it is a tenth of the start
    try:
        from mailserver.roles.start import start
    finally:
        gc.freeze()
        gc.enable()
    return start(options["config"], _reactor)


def _reactor() -> Any:
    """The global reactor, which is made when it is first imported."""
    from twisted.internet import reactor

    return reactor
