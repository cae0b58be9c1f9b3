"""main.cf and master.cf: each parameter declared once, read once, rendered everywhere."""
