"""What is tissue, how it is stained, its colour profile; pyramids written."""
