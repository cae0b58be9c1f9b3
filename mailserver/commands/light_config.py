"""The few parameters that the sendmail command needs, read without the whole configuration.

sendmail is run for each message by programs that wait for it, so it starts light: this reads
main.cf by the same grammar as `config.syntax`, takes the values that need no expansion (but for
`$config_directory`), and leaves everything else to the real thing, `config.read`.
"""

import os

OWN_DIRECTORY = "/etc/mailserver"
POSTFIX_DIRECTORY = "/etc/postfix"
_WHITE_SPACE = " \t\r\n\f\v"
# Each with its default, and with the value of Postfix's that does not mean us.
_DEFAULTS = {
    "queue_directory": ("/var/spool/mailserver", "/var/spool/postfix"),
    "message_size_limit": ("10240000", None),
    "authorized_submit_users": ("static:anyone", None),
}


class CannotRead(Exception):
    """The text says what is wrong, and how to mend it."""


def config_directory(chosen: "str | None") -> str:
    """The directory to read: what was asked for, MAIL_CONFIG, /etc/mailserver, else /etc/postfix."""
    directory = chosen or os.environ.get("MAIL_CONFIG")
    if directory:
        return os.path.abspath(directory)
    return OWN_DIRECTORY if os.path.exists(f"{OWN_DIRECTORY}/main.cf") else POSTFIX_DIRECTORY


def read(directory: str) -> "dict[str, str]":
    """The values of the parameters above. Raises CannotRead."""
    path = f"{directory}/main.cf"
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CannotRead(f"open {path}: {error.strerror}: give -C DIR, or run `mailserver init`") from error
    written = _settings(text)
    found = {}
    for name, (default, foreign) in _DEFAULTS.items():
        value = os.environ.get(f"MAILSERVER_{name}", written.get(name, default))
        first, *others = value.split("$config_directory")
        if "$" in value.replace("$config_directory", "") or any(_goes_on(text) for text in others):
            return _read_whole(directory)
        value = directory.join([first, *others])
        found[name] = default if value == foreign else value
    return found


def _goes_on(text: str) -> bool:
    """Whether the name before the text is longer than it looked."""
    return text[:1].isalnum() or text[:1] == "_"


def _settings(text: str) -> "dict[str, str]":
    """The parameters above as they are written; the last of a name wins."""
    found: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        stripped = line.strip(_WHITE_SPACE)
        if not stripped or stripped[0] == "#":
            continue
        if line[0] in _WHITE_SPACE:
            if name in found:
                found[name] = f"{found[name]} {stripped}".strip(_WHITE_SPACE)
            continue
        name, _, value = stripped.partition("=")
        name = name.rstrip(_WHITE_SPACE)
        if name in _DEFAULTS:
            found[name] = value.strip(_WHITE_SPACE)
    return found


def _read_whole(directory: str) -> "dict[str, str]":
    from mailserver.config.read import ConfigError, read_unchecked

    try:
        config = read_unchecked(directory, os.environ)
        return {name: config.string(name) for name in _DEFAULTS}
    except ConfigError as error:
        raise CannotRead(str(error)) from error
