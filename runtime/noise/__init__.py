"""Where the noise of a picture comes from."""
