"""The names of what a run measures, as they stand in the event files.

Step is always the number of optimizer steps done, so `train/loss` at step 0 is the loss at
initialisation, and `val/loss` at step s belongs to the same weights as `train/loss` at step s.
"""

TRAIN_LOSS = "train/loss"
LEARNING_RATE = "train/lr"
GRADIENT_NORM = "train/grad_norm"
VALIDATION_LOSS = "val/loss"
BEST_VALIDATION_LOSS = "val/best"
TOKENS_PER_SECOND = "perf/tokens_per_second"

# What the HParams page shows as a run's result.
FINAL_VALIDATION_LOSS = "final/val_loss"
FINAL_TRAIN_LOSS = "final/train_loss"

# The run's record (JSON in a Markdown fence), so that the event files alone tell what a run was.
RECORD = "record/text_summary"
