"""The `mailserver` command: one subcommand per thing an administrator does."""
