"""SMTP, POP3 and IMAP for the classic Unix mail host, in one program.

The tree is the architecture: `docs/ARCHITECTURE.md` walks through it.
"""

__version__ = "0.1.0"
