"""A short training, repeated and disturbed, and what that says."""
