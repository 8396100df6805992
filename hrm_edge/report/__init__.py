"""Reports of ``eval`` and ``bench``: closed, versioned schemas with the unit in every name, and their renderings."""
