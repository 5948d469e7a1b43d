"""Commands that find what looks alike, on one slide or on many."""
