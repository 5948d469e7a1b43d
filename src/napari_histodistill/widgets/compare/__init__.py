"""The panel *Compare students*."""
