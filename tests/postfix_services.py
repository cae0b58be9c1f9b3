"""master.cf of a private instance of Debian's Postfix: the services that any of them has, but for smtpd."""

from __future__ import annotations

from typing import Final

SERVICES: Final = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def master_cf(port: int) -> str:
    """The services, and smtpd on a port of the loopback interface."""
    return f"127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}"
