"""TensorRT: engines built from an artifact's step, refused where they are not valid, and run with the carry on the GPU.

One implementation for ``tensorrt`` (10.3 to 11.4) and ``tensorrt_rtx``, which share their Python interface: what
differs is asked for by ``hasattr``, never by a version number.
"""
