"""What to train next: studies, lattices, strategies, and their scheduling on Ray."""
