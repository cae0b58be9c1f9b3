"""What the system says of this host: its name, its addresses, its networks.

The defaults of myhostname and mynetworks come from here, and the addresses that
`inet_interfaces` names.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from typing import Final

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_SIOCGIFCONF: Final = 0x8912
_SIOCGIFNETMASK: Final = 0x891B
_MOST_INTERFACES: Final = 1024
_ROW: Final = 40  # octets, struct ifreq on 64-bit Linux


class Host:
    """This host, as the system sees it. A test gives its own."""

    def name(self) -> str:
        """The host's name, with a domain: `localdomain` where the system knows none."""
        name = socket.gethostname() or "localhost"
        return name if "." in name else f"{name}.localdomain"

    def interfaces(self) -> tuple[Interface, ...]:
        """The addresses of this host with their networks, loopback included."""
        return (*_interfaces_4(), *_interfaces_6())

    def resolve(self, name: str) -> tuple[str, ...]:
        """The addresses of a host name or numeric address. Raises OSError."""
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    def has_ipv6(self) -> bool:
        """Whether the system speaks IPv6 at all."""
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
                probe.bind(("::1", 0))
        except OSError:
            return False
        return True

    def first_line(self, path: str) -> str:
        """The first line of a file, as Debian's `myorigin = /etc/mailname` wants it. Raises OSError."""
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()


def _interfaces_4() -> tuple[Interface, ...]:
    found: list[Interface] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        listed = _list_interfaces(probe)
        for start in range(0, len(listed), _ROW):
            name = listed[start : start + 16].rstrip(b"\0")
            address = socket.inet_ntoa(listed[start + 20 : start + 24])
            found.append(ipaddress.IPv4Interface(f"{address}/{_netmask(probe, name)}"))
    return tuple(found)


def _list_interfaces(probe: socket.socket) -> bytes:
    """The rows of SIOCGIFCONF, `_ROW` octets each. netdevice(7)."""
    rows = array.array("B", bytes(_MOST_INTERFACES * _ROW))
    address, length = rows.buffer_info()
    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFCONF, struct.pack("@iP", length, address))
    return rows.tobytes()[: struct.unpack("@iP", answer)[0]]


def _netmask(probe: socket.socket, name: bytes) -> str:
    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFNETMASK, struct.pack("@40s", name[:15]))
    return socket.inet_ntoa(answer[20:24])


def _interfaces_6() -> tuple[Interface, ...]:
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return ()
    return tuple(
        ipaddress.IPv6Interface((bytes.fromhex(row[0]), int(row[2], 16))) for row in rows if len(row) >= 6
    )
