"""A sweep from plan to figures: the only room that knows both training and analysis."""
