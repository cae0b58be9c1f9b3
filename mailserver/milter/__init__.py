"""Milters: filters of other programs that see a message while it comes in, and may refuse or change it."""
