"""Find alike: where tissue looks like a clicked place, on one slide or on many."""
