"""Benchmarks of a session on one machine: latency, throughput, accuracy and energy, in one report."""
