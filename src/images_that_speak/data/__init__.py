"""Corpora, pictures and the data modules that feed training."""
