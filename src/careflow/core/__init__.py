"""The decisions: pure functions and records. No input or output, no clock, no randomness."""
