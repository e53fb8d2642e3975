"""Objectives that learn from comparisons and judgements of completions."""
