"""The health of a run: records of it in a file, and rules that read them. Needs no torch."""
