"""What a training may be told: the schema, recipe files, presets and the form."""
