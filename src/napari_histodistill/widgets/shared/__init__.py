"""The parts that all panels are built from: docks, rows, canvas tools, overlays."""
