"""Where a recipient's mail goes (plan), and taking it there (execute)."""
