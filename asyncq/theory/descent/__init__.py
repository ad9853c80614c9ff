"""What a staleness law does to descent: stability, noise, time to a target."""
