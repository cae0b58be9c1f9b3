"""A host that tests know everything of, and configurations written for one test."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from mailserver.config.config import Config
from mailserver.config.read import read_config
from mailserver.config.system import Host, Interface


class KnownHost(Host):
    """mx.example.org with 192.0.2.5/24, 2001:db8::5/64 and loopback."""

    def __init__(self, name: str = "mx.example.org", ipv6: bool = True) -> None:
        self._name = name
        self._ipv6 = ipv6

    def name(self) -> str:
        return self._name

    def interfaces(self) -> tuple[Interface, ...]:
        found = ("127.0.0.1/8", "192.0.2.5/24", "::1/128", "2001:db8::5/64")
        return tuple(ipaddress.ip_interface(text) for text in found)

    def resolve(self, name: str) -> tuple[str, ...]:
        known = {"localhost": ("127.0.0.1", "::1"), "mx.example.org": ("192.0.2.5",)}
        if name in known:
            return known[name]
        try:
            return (str(ipaddress.ip_address(name)),)
        except ValueError as error:
            raise OSError(-2, "Name or service not known") from error

    def has_ipv6(self) -> bool:
        return self._ipv6

    def first_line(self, path: str) -> str:
        return "mailname.example.org" if path == "/etc/mailname" else super().first_line(path)


def written(
    directory: Path,
    main: str = "",
    master: str = "",
    dovecot: str | None = None,
    environ: Mapping[str, str] | None = None,
    host: Host | None = None,
) -> Config:
    """The checked configuration of these files."""
    directory.mkdir(exist_ok=True)
    (directory / "main.cf").write_text(main)
    (directory / "master.cf").write_text(master)
    if dovecot is not None:
        (directory / "dovecot.conf").write_text(dovecot)
    return read_config(str(directory), environ or {}, host or KnownHost())
