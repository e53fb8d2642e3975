"""Text generators."""
