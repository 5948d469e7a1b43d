"""What the buttons mean: state machines without Qt and without napari."""
