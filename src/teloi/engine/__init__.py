"""The engine: what an objective is, and what carries it from rows to a trained checkpoint."""
