"""Grammars on bytes. Nothing here opens a file, a socket or a clock."""
