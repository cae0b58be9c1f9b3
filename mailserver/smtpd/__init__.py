"""The SMTP server: bytes to command to policy to queue."""
