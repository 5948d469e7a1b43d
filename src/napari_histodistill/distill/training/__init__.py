"""One step of training: views, networks, objectives, optimiser, health."""
