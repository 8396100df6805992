"""From a picture to a puzzle: decode, find the grid, read its digits, judge them. OpenCV, numpy, ONNX Runtime."""
