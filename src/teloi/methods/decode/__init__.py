"""Decoders: ways to write with a model that stays as it is."""
