"""The programs that Postfix's and Dovecot's users type."""
