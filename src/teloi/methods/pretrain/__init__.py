"""Objectives that start from raw text."""
