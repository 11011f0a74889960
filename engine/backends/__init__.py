"""Run a network: ONNX Runtime or Torch."""
