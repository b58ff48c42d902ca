"""What a run leaves on disk and how it is read back. Pure Python and numpy, never torch."""
