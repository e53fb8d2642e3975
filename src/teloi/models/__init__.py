"""Models: loading, the embedded one, small ones from scratch."""
