"""Measure the server, beside Postfix and Dovecot where root has them installed.

Every figure is operations per second of the server's own processor time (user and system, the whole
process tree), unless its row says otherwise; so the clients and whatever else runs on the
machine count little. `wanted` is the ratio that the project owes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import crowds, doors, growth, report, retrieval, system_accounts, transfer
from benchmarks.measure import Sample, Workload
from benchmarks.peers import Peers, why_not
from benchmarks.servers import Ours, Server, running

WORKLOADS = (
    *transfer.WORKLOADS,
    *crowds.WORKLOADS,
    *retrieval.WORKLOADS,
    *growth.WORKLOADS,
    *system_accounts.WORKLOADS,
    *doors.WORKLOADS,
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--format", choices=("maildir", "mbox", "both"), default="both")
    parser.add_argument("--no-peers", action="store_true", help="measure this server alone")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    return arguments


def _measure(server: Server | None, workload: Workload) -> Sample | None:
    if server is None:
        return None
    try:
        return workload.run(server)
    except (OSError, TimeoutError) as error:
        print(f"{workload.name}: {server.name}: {error}", file=sys.stderr)
        return None


def _rows(mail_format: str, workloads: Sequence[Workload], with_peers: bool) -> Iterator[report.Row]:
    with ExitStack() as stack:
        ours = Ours(Path(tempfile.mkdtemp(prefix="benchmark-ours-")), mail_format)
        stack.enter_context(running(ours))
        peers = None
        if with_peers:
            tls = ours.directory / "tls"
            directory = Path(tempfile.mkdtemp(prefix="benchmark-peers-"))
            peers = Peers(directory, mail_format, tls / "certificate.pem", tls / "key.pem")
            stack.enter_context(running(peers))
        for workload in workloads:
            row = report.Row(workload, mail_format, _measure(ours, workload), _measure(peers, workload))
            print("  ".join(report.cells(row)), file=sys.stderr, flush=True)
            yield row


def main() -> int:
    """Measure what the command line names."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # servers are ended, too
    reason = why_not()
    if reason and not arguments.no_peers:
        print(f"without Postfix and Dovecot: {reason}", file=sys.stderr)
    workloads = [each for each in WORKLOADS if not arguments.names or each.name in arguments.names]
    formats = ("maildir", "mbox") if arguments.format == "both" else (arguments.format,)
    with_peers = not (reason or arguments.no_peers)
    rows = [row for each in formats for row in _rows(each, workloads, with_peers)]
    print(report.as_json(rows) if arguments.json else report.markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
