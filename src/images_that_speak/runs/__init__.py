"""Run folders: identity, resuming, metrics, results."""
