"""Side by side with the libraries people use now: `python -m benchmarks.NAME` for one, `python -m benchmarks` for all.

Run them from the root of a checkout, on a machine that does nothing else."""
