"""`winnow demo`: weeks of the loop in a minute, on a freshly deployed local stack."""
