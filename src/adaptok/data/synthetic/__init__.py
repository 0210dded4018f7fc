"""Synthetic training clips: shapes, text and camera movements."""
