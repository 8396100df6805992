"""Training data: sources, generators, builders and the memory-mapped dataset. Compilers are imported only when used."""
