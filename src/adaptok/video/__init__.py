"""Video files: reading, writing, and how frames of any size meet the model's square."""
