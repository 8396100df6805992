"""The step of an INT8 artifact by our own code for the CPU, compiled on the machine that runs it."""
