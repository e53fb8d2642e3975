"""Objectives that learn from demonstrations."""
