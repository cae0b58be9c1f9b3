"""The server's speed beside Postfix and Dovecot: `python -m benchmarks --help`."""
