"""A record of a machine: every model in every way that works here, measured alike, in one folder and one archive."""
