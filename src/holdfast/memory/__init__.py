"""Memory that runs out: telling it, and trying again in smaller pieces."""
