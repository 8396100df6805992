"""From a checkpoint to an artifact: graph, parity, gate, manifest."""
