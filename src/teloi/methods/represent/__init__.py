"""Representations: encoders whose vectors are near where meanings are."""
