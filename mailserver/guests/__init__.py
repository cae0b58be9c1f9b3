"""Mailboxes of one user of the system for another: the owner's own session host serves them. See `server`."""
