"""ONNX graphs: traced from networks, typed, rewritten, with their weights beside them."""
