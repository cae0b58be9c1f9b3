"""Who runs as whom: the roles, and the messages between them."""
