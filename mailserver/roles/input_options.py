"""What content_filter and receive_override_options say about the mail that comes in one way.

Address mappings of virtual_alias_maps, aliases and canonical envelope maps are made at delivery, so once,
behind the filter; no_address_mappings leaves out those that are made as mail comes in: copies
(always_bcc and its like), and the rewriting of headers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from mailserver.config.config import Config
from mailserver.delivery.content_checks import CheckTables
from mailserver.queue.cleanup import CleanupRules

NO_UNKNOWN_RECIPIENT_CHECKS: Final = "no_unknown_recipient_checks"
NO_ADDRESS_MAPPINGS: Final = "no_address_mappings"
NO_HEADER_BODY_CHECKS: Final = "no_header_body_checks"
NO_MILTERS: Final = "no_milters"
_ALL: Final = (NO_UNKNOWN_RECIPIENT_CHECKS, NO_ADDRESS_MAPPINGS, NO_HEADER_BODY_CHECKS, NO_MILTERS)


def input_options(config: Config) -> frozenset[str]:
    """The words of receive_override_options. Raises ConfigError."""
    words = config.words("receive_override_options")
    for word in words:
        if word not in _ALL:
            raise config.error("receive_override_options", f"unknown word {word}: write {', '.join(_ALL)}")
    return frozenset(words)


def pickup_view(config: Config) -> Config:
    """The configuration as pickup(8) sees it: with the `-o` of its row."""
    rows = [row for row in config.services if row.program == "pickup" and row.overrides]
    return config.with_overrides(rows[0]) if rows else config


def cleanup_rules(rules: CleanupRules, options: frozenset[str]) -> CleanupRules:
    """The rules for content that comes in with those options."""
    if NO_HEADER_BODY_CHECKS in options:
        rules = replace(rules, checks=CheckTables())
    if NO_ADDRESS_MAPPINGS in options:
        rules = replace(rules, rewrite=None, rewrite_remote=None)
    return rules
