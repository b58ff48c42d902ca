"""A sweep from plan to figures: the only package that knows both training and analysis."""
