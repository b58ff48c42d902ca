"""Applications of the library. Nothing below imports them."""
