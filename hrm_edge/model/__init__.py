"""The torch side of the models: one family, its variants are presets in ``hrm_edge.spec``."""
