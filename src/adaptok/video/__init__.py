"""Video files and frames: reading, writing, resizing and pixel conversion."""
