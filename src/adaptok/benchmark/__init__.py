"""Speed and memory on a machine, as a fraction of the machine's peak."""
