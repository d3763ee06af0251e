"""What pytest must not import: a handler's edge refuses to load outside a Lambda worker."""

collect_ignore = ["layers/core/winnow/aws/edge.py"]
