"""Solvers: short functions over noise levels, each named after its paper, run on symbols and compiled to tables."""
