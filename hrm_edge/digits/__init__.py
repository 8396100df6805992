"""The network that reads digits: cells are rendered and photographed by program, then trained on. Host side, torch."""
