"""Recipes that end in learning from rewards."""
