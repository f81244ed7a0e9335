"""What is measured: one module per program, imported only in the process that it runs in."""
