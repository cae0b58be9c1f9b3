"""What the commands with Postfix's names have in common: --help, options, `fatal:` and exit statuses."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailserver.commands.errors import CommandError, nobody_reads
from mailserver.config.syntax import ConfigError
from mailserver.tables.table import TableError


@dataclass(frozen=True, slots=True)
class PostfixCommand:
    """A command.

    `usage` is Postfix's line, for a wrong command line; `help` what --help shows. `failure` is the exit
    status where a problem names none, `misuse` that of a wrong command line.
    """

    name: str
    usage: str
    help: str
    failure: int = 1
    misuse: int = 1

    def run(self, work: Callable[[list[str]], int], argv: Sequence[str] | None) -> int:
        """The exit status: that of `work`, which is given the arguments, or of the problem that it raised.

        CommandError, ConfigError, TableError and OSError are problems that whoever typed it can mend.
        """
        arguments = list(sys.argv[1:] if argv is None else argv)
        if arguments[:1] == ["--help"]:
            print(self.help, end="")
            return 0
        try:
            status = work(arguments)
            sys.stdout.flush()
            return status
        except CommandError as error:
            return self.fatal(str(error), error.status)
        except (ConfigError, TableError) as error:
            return self.fatal(str(error), self.failure)
        except BrokenPipeError:
            return nobody_reads()
        except OSError as error:
            text = error.strerror or str(error)
            return self.fatal(f"{error.filename}: {text}" if error.filename else text, self.failure)
        except KeyboardInterrupt:
            return 130

    def options(
        self, arguments: list[str], letters: str, *, anywhere: bool = False
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """The options with their values, and the words behind them; options may stand among these `anywhere`.

        `letters` are getopt(3)'s. Raises CommandError.
        """
        read = getopt.gnu_getopt if anywhere else getopt.getopt
        try:
            return read(arguments, letters)
        except getopt.GetoptError as error:
            problem = "option requires an argument" if "requires argument" in error.msg else "invalid option"
            print(f"{self.name}: {problem} -- '{error.opt}'", file=sys.stderr)
            raise self.misused() from error

    def misused(self) -> CommandError:
        """What to raise where the command line is wrong."""
        return CommandError(self.usage, self.misuse)

    def fatal(self, text: str, status: int) -> int:
        """The exit status, after the text was said."""
        print(f"{self.name}: fatal: {text}", file=sys.stderr)
        return status
