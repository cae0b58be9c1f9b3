"""Who could not log in with a configuration, and why: a line each, with the cure. For `mailserver check`."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Sequence

from mailserver.config.config import Config
from mailserver.config.listeners import Listener
from mailserver.roles.auth_listener import why_not
from mailserver.roles.logins import dovecot_socket


def login_problems(config: Config, listeners: Sequence[Listener]) -> Iterator[str]:
    """See the module."""
    yield from _without_tls(config, listeners)
    if reason := why_not(config):
        yield f"{config.where('auth_listener')}: auth_listener: {reason}"
    for path in sorted({dovecot_socket(each.config) for each in listeners if each.service == "smtpd"} - {""}):
        if not path.startswith("inet:") and not os.path.exists(path):
            yield (
                f"{config.where('smtpd_sasl_path')}: smtpd_sasl_path: {path}: no Dovecot checks logins: "
                "give its `service auth` that unix_listener, or remove the line to use the accounts here"
            )


def _without_tls(config: Config, listeners: Sequence[Listener]) -> Iterator[str]:
    """Retrieval ports of the network at which no password is taken, since there can be no TLS."""
    if not config.boolean("disable_plaintext_auth"):
        return
    is_off = config.string("ssl") == "no"
    shut = [
        f"{each.address}:{each.port}"
        for each in listeners
        if each.service in ("imapd", "pop3d") and not each.implicit_tls and not _is_loopback(each.address)
        if is_off or not each.config.string("smtpd_tls_cert_file")
    ]
    if shut:
        cause = f"{config.where('ssl')}: ssl = no" if is_off else "smtpd_tls_cert_file: no certificate"
        yield (
            f"{cause}: nobody can log in over the network at {', '.join(shut)}, since passwords "
            "are refused without TLS: "
            "set ssl = yes and name a certificate in smtpd_tls_cert_file, or set disable_plaintext_auth = no "
            "(passwords then travel in clear text)"
        )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
