"""A bundle on disk: its manifest, what engines take and give, its files."""
