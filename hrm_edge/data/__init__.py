"""Training data: sources, generator, builders, the memory-mapped dataset."""
