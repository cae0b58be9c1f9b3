"""One question to PAM, in a process of its own: modules may block, crash, or leave things behind.

Started as a file by `accounts.pam`, so that nothing but the standard library is loaded. Standard input holds
one JSON object: service, name, address, and password in latin-1, null where only the account is to be looked
at. Standard output gets `{"status": N, "phase": …}` with PAM's status and the phase that gave it: start,
authenticate or account. Modules' delays after a wrong password are left out: penalties are the caller's.
pam(3), pam_conv(3), pam_fail_delay(3).
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

SUCCESS = 0
CONVERSATION_ERROR = 19
RHOST, TTY, FAIL_DELAY = 4, 3, 10
SILENT = 0x8000
DISALLOW_NULL_AUTHTOK = 1
ECHO_OFF, ECHO_ON = 1, 2
MOST_MESSAGES = 32  # PAM_MAX_NUM_MSG


class Message(ctypes.Structure):
    """struct pam_message."""

    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class Response(ctypes.Structure):
    """struct pam_response; the text is PAM's to free."""

    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)
DELAY = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class Conversation(ctypes.Structure):
    """struct pam_conv."""

    _fields_ = [("function", CONVERSE), ("data", ctypes.c_void_p)]


libc = ctypes.CDLL(None)
libc.calloc.restype = libc.strdup.restype = ctypes.c_void_p
libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
libc.strdup.argtypes = [ctypes.c_char_p]


def conversation(name: bytes, password: bytes | None) -> Conversation:
    """Answers every question for something secret with the password, any other with the name."""

    def converse(count: int, messages: Any, answers: Any, data: Any) -> int:
        if not 0 < count <= MOST_MESSAGES:
            return CONVERSATION_ERROR
        place = libc.calloc(count, ctypes.sizeof(Response))
        if not place:
            return CONVERSATION_ERROR
        responses = ctypes.cast(place, ctypes.POINTER(Response))
        for number in range(count):
            style = messages[number].contents.style
            if style == ECHO_OFF:
                responses[number].text = libc.strdup(password or b"")
            elif style == ECHO_ON:
                responses[number].text = libc.strdup(name)
        answers[0] = place
        return SUCCESS

    return Conversation(CONVERSE(converse), None)


def ask(service: bytes, name: bytes, password: bytes | None, address: bytes) -> tuple[int, str]:
    """PAM's status, and the phase that gave it. Raises OSError where there is no PAM."""
    pam = ctypes.CDLL("libpam.so.0")
    talk = conversation(name, password)
    no_delay = DELAY(lambda status, microseconds, data: None)
    handle = ctypes.c_void_p()
    status: int = pam.pam_start(service, name, ctypes.byref(talk), ctypes.byref(handle))
    phase = "start"
    if status == SUCCESS:
        pam.pam_set_item(handle, RHOST, address)
        pam.pam_set_item(handle, TTY, b"mailserver")
        pam.pam_set_item(handle, FAIL_DELAY, no_delay)
        if password is not None:
            phase = "authenticate"
            status = pam.pam_authenticate(handle, SILENT | DISALLOW_NULL_AUTHTOK)
        if status == SUCCESS:
            phase = "account"
            status = pam.pam_acct_mgmt(handle, SILENT | DISALLOW_NULL_AUTHTOK)
        pam.pam_end(handle, status)
    return status, phase


def main() -> None:
    """The answer is on standard output."""
    question = json.load(sys.stdin)
    password = question["password"]
    status, phase = ask(
        question["service"].encode(),
        question["name"].encode(),
        None if password is None else password.encode("latin-1"),
        question["address"].encode(),
    )
    json.dump({"status": status, "phase": phase}, sys.stdout)


if __name__ == "__main__":
    main()
