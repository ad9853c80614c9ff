"""From chunks of rows to numbers with intervals."""
