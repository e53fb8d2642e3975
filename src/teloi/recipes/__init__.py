"""Recipes: chains of methods from several wings, one file a recipe, in the wings of what they are for."""
