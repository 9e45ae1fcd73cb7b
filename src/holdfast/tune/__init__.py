"""The search for training settings."""
