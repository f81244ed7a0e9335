"""What computes: the host or a GPU, behind one interface."""
