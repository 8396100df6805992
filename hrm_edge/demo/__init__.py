"""The live demo: capture, locate, read, solve, draw; a window or a web page shows it."""
