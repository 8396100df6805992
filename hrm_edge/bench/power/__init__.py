"""Power meters (one file each, behind one protocol), the thread that samples them, and energy over a window."""
