"""More from routine H&E: run, question and teach distilled students.

What a notebook needs is at the top, and is imported when it is first used:

==================  ============================================================
Slides              :func:`open_slide`, :class:`Region`
Students            :func:`list_students`, :func:`load_student`,
                    :func:`save_student`
Maps                :func:`plan_grid`, :func:`embed_slide`, :func:`class_map`,
                    :func:`similarity_map`, :func:`rank_regions`
For other programs  :func:`export_map`, :func:`export_wsinfer`
Training            :func:`train_student`, :func:`evaluate_student`
==================  ============================================================

All else is in the rooms below, and in ``napari_histodistill.errors`` what can go wrong;
``ARCHITECTURE.md`` beside this file shows how they work together.

================  ==============================================================
``slides``        a file becomes a lazily tiled pyramid, a tissue mask, a grid
``students``      the encoder a person runs: spec, bundle, device, backends
``maps``          embeddings on a grid, similarity and class maps, the store
``distill``       pairs, recipes, training runs, experiments, scores
``export``        GeoJSON, OME-Zarr, CSV, the WSInfer layout
``layers``        core values to napari layer tuples, without Qt
``samples``       slides and pairs to try things on
``controllers``   what the buttons mean, without Qt and without napari
``widgets``       Qt: build, connect, lay out
``cli``           ``histodistill …``
================  ==============================================================

Importing this package loads neither torch nor napari nor Qt, nor even numpy.

Examples
--------
>>> import napari_histodistill as nh
>>> [entry.name for entry in nh.list_students()]
['colon-he', 'colon-probe', 'bulb-control', 'bulb-genes', 'imagenet-lite0']
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.distill.from_recipe import train_student
    from napari_histodistill.distill.scoring.evaluate import evaluate_student
    from napari_histodistill.export.by_suffix import export_map
    from napari_histodistill.export.wsinfer import export_wsinfer
    from napari_histodistill.geometry import Region
    from napari_histodistill.maps.alike.ranking import rank_regions
    from napari_histodistill.maps.alike.similarity import similarity_map
    from napari_histodistill.maps.classes import class_map
    from napari_histodistill.maps.embedding_plan import plan_grid
    from napari_histodistill.maps.engine import embed_slide
    from napari_histodistill.slides.opening import open_slide
    from napari_histodistill.students.bundle import load_student, save_student
    from napari_histodistill.students.bundled import list_students

__version__ = "0.1.0.dev0"

__all__ = [
    "Region",
    "class_map",
    "embed_slide",
    "evaluate_student",
    "export_map",
    "export_wsinfer",
    "list_students",
    "load_student",
    "open_slide",
    "plan_grid",
    "rank_regions",
    "save_student",
    "similarity_map",
    "train_student",
]

# The imports above once more, for when the program runs. A test holds both together.
# No name may be a room's too: whichever was imported first would hide the other.
_HOMES = {
    "Region": "geometry",
    "class_map": "maps.classes",
    "embed_slide": "maps.engine",
    "evaluate_student": "distill.scoring.evaluate",
    "export_map": "export.by_suffix",
    "export_wsinfer": "export.wsinfer",
    "list_students": "students.bundled",
    "load_student": "students.bundle",
    "open_slide": "slides.opening",
    "plan_grid": "maps.embedding_plan",
    "rank_regions": "maps.alike.ranking",
    "save_student": "students.bundle",
    "similarity_map": "maps.alike.similarity",
    "train_student": "distill.from_recipe",
}

# Rooms that need no `import` of their own after `import napari_histodistill`; those of
# the window are not among them, so that no completion or help loads Qt.
_ROOMS = frozenset(
    {"distill", "errors", "export", "geometry", "maps", "samples", "slides", "students"}
)

# A type checker that saw these two would take any misspelt name for an object.
if not TYPE_CHECKING:

    def __getattr__(name):
        """Import a public name, or a room, when it is first used."""
        from importlib import import_module

        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        """Return what completion offers: the public names and the rooms."""
        return sorted({*globals(), *__all__, *_ROOMS})
