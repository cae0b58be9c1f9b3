"""`make fuzz`: atheris, which follows what the code does, feeds each target for some seconds.

    python -m tests.fuzz --seconds 20 [TARGET ...]

What breaks a target is kept in --directory, with its traceback on the terminal; give such a file to
`python -m tests.fuzz --replay FILE TARGET`. The exit code is 1 where anything broke.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

_SELF = [sys.executable, "-m", "tests.fuzz"]


def fuzz(name: str, arguments: list[str]) -> None:
    """This process feeds the target, and ends with libFuzzer's exit code."""
    import atheris

    with atheris.instrument_imports(include=["mailserver"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default: 20)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()) / "mailserver-fuzz")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="feed the target this file only")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.one:
        fuzz(options.one, rest)
    from tests.fuzz.targets import SEEDS, TARGETS

    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.replay:
        for name in options.targets:
            TARGETS[name](options.replay.read_bytes())
        return 0
    broken = []
    for name in options.targets or TARGETS:
        corpus = options.directory / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[TARGETS[name]]):
            (corpus / f"seed-{number}").write_bytes(seed)
        limits = [f"-max_total_time={options.seconds}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]
        place = f"-artifact_prefix={options.directory}/{name}-"
        done = subprocess.run(
            [*_SELF, "--one", name, *limits, place, str(corpus)],
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
        print(f"{name:20} {runs[-1] if runs and not done.returncode else 'BROKEN'}", flush=True)
        if done.returncode:
            broken.append(name)
            print(done.stderr[-4000:], file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
