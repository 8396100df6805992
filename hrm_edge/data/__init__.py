"""Training data: sources, generator, builders, the memory-mapped dataset. Modules import their compilers lazily."""
