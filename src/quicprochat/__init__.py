"""A mesh messenger: one signed, sealed envelope finds its way to the person it is for."""

__version__ = "0.1.0"
