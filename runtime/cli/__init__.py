"""The command line of the runtime, and the way to all other commands."""
