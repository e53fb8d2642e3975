"""Examples and batches: a `Tree` is one prompt with its branches, a `TreeBatch` many trees ready for a model."""
