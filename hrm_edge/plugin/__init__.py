"""The fused attention as a TensorRT plugin: what it is called, its kernels, and how it is built, found and loaded."""
