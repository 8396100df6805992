"""The step of an artifact by our own code for the CPU, compiled on the machine that runs it."""
