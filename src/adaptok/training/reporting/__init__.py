"""Files for people that a run writes: curves, samples and the model card."""
