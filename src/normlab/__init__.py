"""A laboratory for normalization in Transformers."""

__version__ = "0.1.0"
