"""Numeric kernels: the numpy reference of each is also its host implementation.

``gpu`` has them in Triton, and compiles them; ``launch`` is what a runtime without Triton needs to launch them.
"""
