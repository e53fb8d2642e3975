"""Objectives that learn from rewards for what the policy samples."""
