"""Logins for other programs, in Dovecot's auth protocol."""
