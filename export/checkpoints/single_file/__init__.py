"""Single-file checkpoints in the original (LDM, SGM, MMDiT) key layout, seen as diffusers folders.

What a file is, its configs and the place of every weight follow from names and shapes in the safetensors header and
from data that ships with the package: nothing is downloaded, and no weight is read before it is used.

The names are written down once, from diffusers' side: the config that the shapes give says which weights its network
has, and each has a place in the file. So what is missing and what is left over are known by the file's own names before
torch is imported. diffusers' conversions go the other way, from whatever a file holds to copies of it in memory; the
tests compare with them.
"""
