"""The jobs of *Distil a student*."""

from napari_histodistill.controllers.shared.job import JobKey


class DistilJob(JobKey):
    """A job of *Distil a student*; its value is what people read."""

    READING_SPOTS = "Reading spots"
    READING_LABELS = "Reading annotations"
    LOOKING = "Looking at the partner"
    FITTING = "Fitting landmarks"
    FINDING = "Finding the partner"
    REFINING = "Refining the alignment"
    COMPOSING = "Composing the checkerboard"
    LAYING_OUT = "Laying out pairs"
    WRITING = "Writing pairs"
    STARTING = "Starting the training"
    PREVIEW = "Preview"
    FITTING_CLASSES = "Learning classes"
    HELPING = "Does it help?"
    RESTORING = "Opening kept sections"
