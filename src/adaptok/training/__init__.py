"""Training of tokenizers, scorers and generators: one loop, with a stage and an objective for each."""
