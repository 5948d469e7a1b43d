"""The jobs of *Explore slide*, and which of them end with what."""

from napari_histodistill.controllers.shared.job import JobKey, SlideJob


class ExploreJob(JobKey):
    """A job of *Explore slide*; its value is what people read."""

    LOADING = "Loading the model"
    RUN = "Run"
    STORED_MAP = "Stored map"
    SEARCH = "Search"
    RANKING = "Ranking"
    THUMBNAILS = "Thumbnails"
    LEARNING = "Learning from strokes"
    HOLDING = "Getting ready to learn"
    ASKING = "Looking for squares to ask about"
    ANNOTATIONS = "Annotations"
    SAVING = "Saving"
    JUDGING = "Comparing with what the model learned from"
    OVERVIEW = "Reading the overview"
    FITTING_STAIN = "Measuring the stain"


OF_THE_SEARCH = (ExploreJob.SEARCH, ExploreJob.RANKING, ExploreJob.THUMBNAILS)
"""Jobs that answer a click."""

OF_THE_MAP = (
    ExploreJob.STORED_MAP,
    ExploreJob.RUN,
    ExploreJob.JUDGING,
    *OF_THE_SEARCH,
    ExploreJob.LEARNING,
    ExploreJob.HOLDING,
    ExploreJob.ASKING,
)
"""Jobs that have no meaning once another student looks."""

OF_THE_SLIDE = (
    SlideJob.FINDING_TISSUE,
    SlideJob.READING,
    ExploreJob.FITTING_STAIN,
    ExploreJob.ANNOTATIONS,
    *OF_THE_MAP,
)
"""Jobs that have no meaning once another slide is chosen."""
