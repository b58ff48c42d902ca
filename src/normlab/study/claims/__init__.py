"""Claims put to the test: what is missing is trained and measured, what is there is reused."""
