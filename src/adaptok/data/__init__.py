"""Collections of videos and photographs, training clips drawn from them, and token datasets."""
