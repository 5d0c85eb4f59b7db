"""Readers of pictures and of speech, and their statistics."""
