"""Networks: their weights and cards on disk, ONNX, and blocks that go into other networks."""
