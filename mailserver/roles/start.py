"""The start of the server, from the directory of its configuration.

With system accounts, as root, the roles run in processes of their own and this one is their
supervisor (`roles.separated`); else everything runs here (`roles.one_owner`). What is wrong with
the configuration or the machine ends the start with one line and exit status 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from mailserver.config.read import ConfigError, read_config
from mailserver.rights.process_name import name_process
from mailserver.roles.listening import StartFailed
from mailserver.roles.parts import has_system_accounts, mail_log
from mailserver.tls import CertificateError


def start(directory: str | None, reactor: Callable[[], Any]) -> Any:
    """The service, ready to start, its ports bound; with system accounts the process ends with the server.

    `reactor` gives the global one, which is asked for only where everything runs in this process.
    """
    try:
        config = read_config(directory, os.environ)
        log = mail_log(config)
        name_process("master", "-c", config.directory)
        for warning in config.warnings:
            log.write("master", f"warning: {warning}")
        if has_system_accounts(config):
            from mailserver.roles.separated import run

            run(config, log)
            sys.exit(0)
        from mailserver.roles.one_owner import OneOwnerServer

        server = OneOwnerServer(config, log, reactor())
        server.prepare()
    except (ConfigError, StartFailed, CertificateError) as error:
        _fail(str(error))
    log.write(
        "master",
        f"daemon started -- version {config.string('mail_version')}, configuration {config.directory}",
    )
    return server


def _fail(text: str) -> NoReturn:
    sys.exit(f"mailserver: fatal: {text}")
