"""Initial weights of the models that runs start from."""
