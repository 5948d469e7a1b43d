"""What is asked about partners, what a look into them found, and words for it."""
