"""Numeric kernels: the numpy reference of each is also its host implementation."""
