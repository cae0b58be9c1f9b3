"""Queue files, their schedule, and the runner that empties them."""
