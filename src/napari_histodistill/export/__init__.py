"""Maps and students in the formats of other tools."""
