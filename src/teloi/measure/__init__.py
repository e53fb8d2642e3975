"""Metrics, judges and statistics: what a trained model is worth, and how sure that is."""
