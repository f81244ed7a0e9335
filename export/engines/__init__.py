"""What compiles graphs: one compiler for each provider, and the kernels that go beside engines."""
