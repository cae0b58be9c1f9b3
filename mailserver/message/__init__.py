"""RFC 5322 and MIME on bytes. Nothing here opens a file, a socket or a clock."""
