"""Images that Speak: pictures that are also log-mel spectrograms of speech."""

__version__ = "0.1.0"
