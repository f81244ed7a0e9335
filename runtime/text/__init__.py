"""From prompts to the denoiser's conditioning."""
