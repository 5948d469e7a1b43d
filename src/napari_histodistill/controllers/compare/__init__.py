"""The session behind *Compare students*."""
