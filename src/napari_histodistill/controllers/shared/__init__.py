"""The foundation of every panel's session: jobs, plans, live maps, exports."""
