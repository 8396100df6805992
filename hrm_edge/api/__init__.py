"""What ``import hrm_edge`` offers. The command line is options around it."""
