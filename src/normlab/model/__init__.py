"""What a norm stands in: a decoder-only Transformer with one residual equation."""
