"""The kernels in Triton: each file has one kernel, what it is compiled for, and a typed function that launches it.

Importing them needs triton. The runtime does not: it launches what ``aot`` compiled (``kernels.launch``).
"""
