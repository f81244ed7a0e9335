"""From ONNX graphs to engines of TensorRT and TensorRT-RTX."""
