"""From rows to numbers: counts, batches, series, collected while an engine runs."""
