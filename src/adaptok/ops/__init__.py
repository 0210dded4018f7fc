"""Kernels that are faster than plain torch, each in a file with its plain reference. The models call them."""
