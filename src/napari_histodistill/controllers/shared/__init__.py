"""What every panel's session stands on: jobs, plans, live maps, exports."""
