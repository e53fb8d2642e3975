"""Small environments whose utility is exact, because a program decides it."""
