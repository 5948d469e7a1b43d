"""References: what slides are compared with, fitted to the training cases."""
