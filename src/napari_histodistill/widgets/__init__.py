"""Qt: build, connect, lay out; everything that decides lives in controllers."""
