"""Questions about partners in step 1, and files that become partners."""
