"""The POP3 server over a maildrop frozen at login."""
