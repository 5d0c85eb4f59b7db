"""Text to phonemes, durations and speech."""
