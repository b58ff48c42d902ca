"""How fast the lab is beside what a user would pick instead."""
