"""Completion of `mailserver` in bash: `python -m mailserver.commands.completion`.

Rendered from the parsers at install time, so that a keystroke starts no Python. Options and
subcommands are completed by name; elsewhere file names are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Final

from mailserver.commands.main import parser

_BASH: Final = """\
# Completion of mailserver in bash; rendered by `make install`.
_mailserver() {{
    local place="" word names=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$place/$word" in
            {places}) place="$place/$word" ;;
        esac
    done
    case "$place" in
{rows}
    esac
    COMPREPLY=($(compgen -W "$names" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _mailserver mailserver
"""


def names(of: argparse.ArgumentParser, place: str = "") -> Iterator[tuple[str, list[str]]]:
    """The place of each (sub)command, `` or `/user/add`, and the words that may follow there."""
    nested = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    options = [option for action in of._actions for option in action.option_strings]
    yield place, sorted({*options, *(name for action in nested for name in action.choices)})
    for action in nested:
        for name, child in action.choices.items():
            yield from names(child, f"{place}/{name}")


def script() -> str:
    """The text of the completion file."""
    table = dict(names(parser()))
    rows = [f'        "{place}") names="{" ".join(words)}" ;;' for place, words in table.items()]
    return _BASH.format(places="|".join(filter(None, table)), rows="\n".join(rows))


if __name__ == "__main__":
    sys.stdout.write(script())
