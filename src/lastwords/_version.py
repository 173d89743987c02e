"""The version, apart from the package that reads it: what the targets send as their name imports only this."""

__version__ = "0.1.0"
