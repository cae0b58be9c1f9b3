"""The names of a certificate, and which of them a policy asks for.

subjectAltName alone counts, `*` is a whole leftmost label, and `.example.org` in a policy stands for every
host below that domain. RFC 6125 §6.4.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from cryptography import x509


class CertificateMismatch(Exception):
    """The peer's certificate is not what was asked for; `is_trusted` where only its names are wrong."""

    def __init__(self, text: str, is_trusted: bool = False) -> None:
        super().__init__(text)
        self.is_trusted = is_trusted


def names_in(certificate: x509.Certificate) -> Iterator[str]:
    """The host names and IP addresses of a certificate's subjectAltName, in lower case."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (name.lower() for name in names.get_values_for_type(x509.DNSName))
    yield from map(str, names.get_values_for_type(x509.IPAddress))


def matches(pattern: str, name: str) -> bool:
    """Whether a certificate's name is what the policy's pattern asks for. RFC 6125 §6.4.3."""
    pattern = pattern.lower().rstrip(".")
    if pattern.startswith("."):
        return name.endswith(pattern) and len(name) > len(pattern)
    if name.startswith("*."):
        return name[1:] == pattern[pattern.find(".") :] and "." in name[2:] and not is_address(pattern)
    return name == pattern


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
