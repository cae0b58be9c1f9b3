"""Mailboxes: the contract, mbox, maildir, and the index that remembers UIDs."""
