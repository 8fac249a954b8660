"""What the scripts share: flags, errors, safe files and messages."""

__version__ = "0.1.0"
