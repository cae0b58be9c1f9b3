"""Thunderbird under Xvfb, driven by chrome scripts over Marionette's wire protocol."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.server import free_ports, wait_for

_WRAPPER = """
const [parameters, done] = [arguments, arguments[arguments.length - 1]];
const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));
const until = async (claim) => { for (let n = 0; n < 600 && !claim(); n++) await sleep(50); return claim(); };
(async () => { SCRIPT })().then((value) => done({value}), (error) => done({error: String(error)}));
"""
_PREFERENCES = {
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mail.spotlight.firstRunDone": True,
    "mail.biff.show_alert": False,
    "mailnews.database.global.indexer.enabled": False,
    "mailnews.start_page.enabled": False,
}


class Thunderbird:
    """A running Thunderbird. `script` runs JavaScript in it and gives what it returns."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(120)
        self._buffer = b""
        self._number = 0
        self._read()
        self._ask("WebDriver:NewSession", capabilities={})
        self._ask("Marionette:SetContext", value="chrome")
        self._ask("WebDriver:SetTimeouts", script=100_000)

    def script(self, text: str, *arguments: Any) -> Any:
        """What the script returns; it may await. Fails where it throws."""
        body = _WRAPPER.replace("SCRIPT", text)
        answer = self._ask("WebDriver:ExecuteAsyncScript", script=body, args=arguments)["value"]
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def _ask(self, command: str, **parameters: Any) -> Any:
        self._number += 1
        packet = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(packet), packet))
        _, _, error, result = self._read()
        assert error is None, error
        return result

    def _read(self) -> Any:
        while b":" not in self._buffer:
            self._buffer += self._socket.recv(65536)
        length, _, rest = self._buffer.partition(b":")
        while len(rest) < int(length):
            rest += self._socket.recv(65536)
        self._buffer = rest[int(length) :]
        return json.loads(rest[: int(length)])


@contextmanager
def thunderbird(directory: Path) -> Iterator[Thunderbird]:
    """A Thunderbird with an empty profile on a display of its own, ended at the end."""
    profile = directory / "profile"
    profile.mkdir()
    (port,) = free_ports(1)
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items()]
    lines.append(f'user_pref("marionette.port", {port});')
    (profile / "user.js").write_text("\n".join(lines))
    read_end, write_end = os.pipe()
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1280x900x24"],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    )
    name = os.read(read_end, 16).decode().strip()
    environment = {**os.environ, "DISPLAY": f":{name}", "HOME": str(directory)}
    program = ["thunderbird", "--profile", str(profile), "--marionette", "--remote-allow-system-access"]
    process = subprocess.Popen(
        [*program, "--no-remote"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _listens(port), "Thunderbird's Marionette")
        yield Thunderbird(port)
    finally:
        for each in (process, display):
            each.kill()
            each.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
