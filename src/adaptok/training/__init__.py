"""One loop, one objective per stage."""
