"""Speed and memory of the program's work on a machine, as a share of what the machine can do."""
