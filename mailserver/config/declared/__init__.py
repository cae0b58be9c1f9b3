"""The declarations of all parameters, by topic."""
