"""Waveform, log-mel spectrogram and picture, and the vocoders that lead back."""
