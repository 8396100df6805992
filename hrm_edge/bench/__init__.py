"""Latency, throughput and accuracy of a session on one machine, in one report."""
