"""INT8 quantization: which layers, and the scales of their inputs from the whole recurrence of real puzzles."""
