"""Small, re-runnable ratios against plain references, limits and peers: `make bench`, or `python -m benchmarks`."""
