"""The library's door: what ``hrm_edge`` exports. The command line is options around it."""
