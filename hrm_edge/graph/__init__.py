"""One step of a model as an ONNX graph: how an export writes it, and how other code checks that it runs that step."""
