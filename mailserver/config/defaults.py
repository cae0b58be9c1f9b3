"""The defaults that depend on the host or on other parameters. postconf(5).

They are texts like all defaults, so a `$` in them is expanded, and one that stands for itself
is doubled.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mailserver.config.config import Config
    from mailserver.config.system import Interface


def _myhostname(config: Config) -> str:
    name = config.host.name()
    return name if "." in name else f"{name}.$mydomain"


def _mydomain(config: Config) -> str:
    # A host name that is itself made of $mydomain says nothing of the domain.
    if config.is_set("myhostname") and "mydomain" in config.raw("myhostname"):
        return config.host.name().partition(".")[2] or "localdomain"
    return config.string("myhostname").partition(".")[2] or "localdomain"


def _mynetworks(config: Config) -> str:
    style = config.string("mynetworks_style").lower()
    networks = [_network(interface, style) for interface in config.host.interfaces()]
    return " ".join(dict.fromkeys(networks))


def _network(interface: Interface, style: str) -> str:
    """The network of one own address in the style `host`, `subnet` or `class`."""
    if interface.version == 6:
        network = interface.network if style != "host" else ipaddress.IPv6Network(interface.ip)
        return f"[{network.network_address}]/{network.prefixlen}"
    if interface.ip.is_loopback:
        return "127.0.0.0/8"
    if style == "class":
        first = int(interface.ip) >> 24
        length = 8 if first < 128 else 16 if first < 192 else 24
        return str(ipaddress.ip_network(f"{interface.ip}/{length}", strict=False))
    return str(interface.network) if style == "subnet" else f"{interface.ip}/32"


def _mail_location(config: Config) -> str:
    """Where delivery puts mail, for INBOX; other folders in ~/mail, or beside INBOX for a maildir."""
    home_mailbox = config.raw("home_mailbox")
    if home_mailbox:
        return (
            f"maildir:~/{home_mailbox}"
            if home_mailbox.endswith("/")
            else f"mbox:~/mail:INBOX=~/{home_mailbox}"
        )
    spool = config.raw("mail_spool_directory")
    return f"maildir:{spool}%u" if spool.endswith("/") else f"mbox:~/mail:INBOX={spool}/%u"


def _listen(config: Config) -> str:
    """With a dovecot.conf Dovecot's own default, else where SMTP listens."""
    return "*, ::" if config.dovecot_path else "$inet_interfaces"


def _namespace_separator(config: Config) -> str:
    """The prefix's; without one and with a dovecot.conf Dovecot's own default, that of the format."""
    return config.raw("namespace_prefix")[-1:] or ("" if config.dovecot_path else "/")


def _config_directory(config: Config) -> str:
    return config.directory.replace("$", "$$")


COMPUTED: Final[Mapping[str, Callable[[Config], str]]] = MappingProxyType(
    {
        "myhostname": _myhostname,
        "mydomain": _mydomain,
        "mynetworks": _mynetworks,
        "mail_location": _mail_location,
        "listen": _listen,
        "namespace_separator": _namespace_separator,
        "config_directory": _config_directory,
    }
)
