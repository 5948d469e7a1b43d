"""The jobs of *Compare students*, and which of them end with what."""

from napari_histodistill.controllers.shared.job import JobKey


class CompareJob(JobKey):
    """A job of *Compare students*; its value is what people read."""

    LOADING_A = "Loading A"
    LOADING_B = "Loading B"
    SEEDS = "Looking for a second seed"
    TRAINING = "Training a second seed"
    RUN = "Run"
    MEASURE = "Measure"
    RANKING = "Ranking"
    THUMBNAILS = "Thumbnails"
    PLACE = "Place"
    PICTURES_A = "Pictures A"
    PICTURES_B = "Pictures B"


LOADING = (CompareJob.LOADING_A, CompareJob.LOADING_B)
"""Of student A and of student B."""

PICTURES = (CompareJob.PICTURES_A, CompareJob.PICTURES_B)
"""Of student A and of student B."""

OF_THE_MAPS = (
    CompareJob.RUN,
    CompareJob.MEASURE,
    CompareJob.RANKING,
    CompareJob.THUMBNAILS,
    CompareJob.PLACE,
    *PICTURES,
)
"""Jobs that have no meaning once other students look."""
