"""Export time: from a checkpoint to a bundle. Needs the ``export`` extra (torch, diffusers, onnx)."""
