"""Who reads the blocks of a run: threads, or processes of their own."""
