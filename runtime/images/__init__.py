"""Pictures in, pictures out, and how each was made."""
