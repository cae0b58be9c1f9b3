"""`newaliases`: index the files of alias_database. newaliases(1)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from mailserver.commands import postalias
from mailserver.config.read import ConfigError, read_unchecked


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status. Options of sendmail's but -C and -c are taken without effect."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    directory = next((value for name, value in pairwise(arguments) if name in ("-c", "-C")), None)
    try:
        names = read_unchecked(directory, os.environ).words("alias_database")
    except ConfigError as error:
        print(f"newaliases: fatal: {error}", file=sys.stderr)
        return 1
    where = ["-c", directory] if directory else []
    return postalias.main([*where, *names]) if names else 0


if __name__ == "__main__":
    sys.exit(main())
