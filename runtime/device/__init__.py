"""What computes: the GPU and its driver."""
