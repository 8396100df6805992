"""hrm-edge: train, quantize, export and run Hierarchical Reasoning Models on edge devices."""

__version__ = "0.1.0"
