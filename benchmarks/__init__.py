"""Small, re-runnable ratios against plain references: `make bench`, or `python -m benchmarks [scoring|selection]`."""
