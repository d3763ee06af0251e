"""From answers to labels: consensus, agreement, and who can be relied on."""
