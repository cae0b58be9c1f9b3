"""`sendmail -bv`: where mail for the recipients would go, said at once; nothing is sent.

Postfix mails a report instead. The words are Sendmail's: `deliverable`, `undeliverable`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from mailserver.config.read import ConfigError, read_config
from mailserver.delivery.explain import as_lines, explain
from mailserver.delivery.lookups import LiveLookups
from mailserver.delivery.plan import LeafKind
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts
from mailserver.roles.queueing import local_agents
from mailserver.wire.address import AddressError, parse_lenient

_FAILURE: Final = 75


def main(config_directory: str | None, recipients: Sequence[str]) -> int:
    """The verdicts are printed. The exit status."""
    try:
        parts = Parts(read_config(config_directory, os.environ), ListLog())
        lookups = LiveLookups(parts.routing, parts.local_rules, local_agents(parts))
        for text in recipients:
            explanation = explain(parse_lenient(text), parts.routing, parts.local_rules, lookups)
            plan = explanation.plan
            fails = plan is None or any(leaf.kind is LeafKind.FAILED for leaf in plan.leaves)
            print(f"{text}... {'undeliverable' if fails else 'deliverable'}:")
            print("\n".join(f"  {line}" for line in as_lines(explanation)))
    except (ConfigError, AddressError) as error:
        print(f"sendmail: fatal: {error}", file=sys.stderr)
        return _FAILURE
    return 0
