"""What is learned from and what is judged on: roles, near-duplicate clusters, versions, leaks."""
