"""What is asked of the sides: one module per suite, each a generator of records."""
