"""A checkpoint's networks as PyTorch modules with named tensors, without their weights until those are wanted."""
