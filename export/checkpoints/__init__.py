"""Checkpoints, in diffusers' folders and in single files: found, checked, and told which family they are."""
