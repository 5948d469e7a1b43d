"""``search``: the most similar places of several slides."""

from __future__ import annotations

import io
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.alike.similar import (
    LimitOption,
    ThresholdOption,
    region_facts,
)
from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.maker import maker_of
from napari_histodistill.cli.options import (
    DeviceOption,
    JsonOption,
    OutOption,
    parse_point,
)
from napari_histodistill.cli.outputs import (
    claimed_folder,
    refuse_occupied,
    refuse_others,
    unfinished,
)
from napari_histodistill.errors import HistodistillError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.export.places import PlacePicture
    from napari_histodistill.maps import (
        EmbeddingStore,
        PlaceOf,
        SlidesQuery,
        SlidesSearched,
    )
    from napari_histodistill.maps.alike.across_slides import FoundPlace, SearchProgress
    from napari_histodistill.slides import Slide

PICTURE_PX = 120
_SAY_EVERY_S = 10.0


def search(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORES…",
            help="Stores made by `embed` with one student, or folders that hold them.",
        ),
    ],
    out: OutOption,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="STORE:Y,X",
            help="Like this place of one of the slides, in level-0 pixels; may be "
            "repeated. STORE is a path or a name, such as case-7 of case-7.zarr.",
        ),
    ] = None,
    not_at: Annotated[
        list[str] | None,
        typer.Option(
            "--not-at", metavar="STORE:Y,X", help="Not like this; may be repeated."
        ),
    ] = None,
    tile: Annotated[
        Path | None,
        typer.Option(
            "--tile", metavar="PICTURE", help="Like the tile in a picture's middle."
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp",
            metavar="µM",
            help="µm per pixel of the picture, if it does not say or is wrong.",
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            metavar="NAME|DIR",
            help="Student that looks at the picture; by default the one that made the "
            "stores.",
        ),
    ] = None,
    threshold: ThresholdOption = None,
    limit: LimitOption = 20,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Find the most similar places of several slides."""
    from napari_histodistill.maps import EmbeddingStore, search_slides

    began = time.perf_counter()
    with answering(as_json=json) as answer, ExitStack() as stack:
        _refuse_results(out)
        paths = _found(stores)
        query, about = _query(
            paths, at or [], not_at or [], tile=tile, mpp=mpp, student=student,
            device=device,
        )  # fmt: skip
        cancel = stack.enter_context(interruptible())
        found = _followed(
            search_slides(paths, query, threshold=threshold, cancel=cancel)
        )
        pending = sum(
            unfinished(EmbeddingStore.open(path)).get("pending", 0) for path in paths
        )
        places = found.places(limit)
        stack.enter_context(claimed_folder(out))
        outputs = _write(found, places, out, about)
        made_by = found.slides[0].made_by
        result = {
            "student": made_by.student_name,
            "student_digest": made_by.student_digest,
            "mode": made_by.mode,
            **about,
            "threshold": found.threshold,
            "places": [
                region_facts(one.place)
                | {
                    "rank": one.rank,
                    "slide": one.answer.made_by.slide_name,
                    "store": str(one.answer.store),
                }
                for one in places
            ],
            "slides": [
                {
                    "slide": one.made_by.slide_name,
                    "store": str(one.store),
                    "best": one.best,
                    "places": len(one.ranked),
                    "area_mm2": one.area_mm2,
                    "squares": one.squares,
                }
                for one in found.slides
            ],
            "outputs": {name: str(path) for name, path in outputs.items()},
            **({"pending": pending} if pending else {}),
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(result, _text(result))


def _refuse_results(out: Path) -> None:
    from napari_histodistill.export import places as written
    from napari_histodistill.export.safe_writing import folder_holds_ours, holds_ours

    refuse_occupied(out)
    refuse_others(
        out,
        {
            "places.csv": partial(holds_ours, is_ours=written.is_places),
            "slides.csv": partial(holds_ours, is_ours=written.is_slides),
            "places.html": partial(holds_ours, is_ours=written.is_page),
            "outlines": partial(folder_holds_ours, is_ours=written.is_outlines),
        },
        "what a search wrote",
    )


def _found(given: Sequence[Path]) -> list[Path]:
    """Return the stores among the arguments and in the folders among them."""
    from napari_histodistill.maps.store import is_store

    found: dict[Path, None] = {}
    for path in given:
        if is_store(path) or not path.is_dir():
            found[path] = None  # what is no store is refused where it is opened
            continue
        inside = sorted(
            one for one in (*path.glob("*.zarr"), *path.glob("*/*.zarr"))
            if is_store(one)
        )  # fmt: skip
        if not inside:
            msg = f"{path}: there are no stores in it; `histodistill embed` makes them."
            raise InputError(msg)
        found |= dict.fromkeys(inside)
    return list(found)


def _query(
    paths: Sequence[Path],
    at: Sequence[str],
    not_at: Sequence[str],
    *,
    tile: Path | None,
    mpp: float | None,
    student: str | None,
    device: str,
) -> tuple[SlidesQuery, dict[str, Any]]:
    """Return what is looked for, and the same for people."""
    from napari_histodistill.maps import SlidesQuery

    if not at and tile is None:
        msg = "Say what to look for: --at STORE:Y,X, or --tile PICTURE."
        raise InputError(msg)
    if tile is None and (mpp is not None or student is not None):
        msg = "--mpp and --student are of a picture: give --tile PICTURE, too."
        raise InputError(msg)
    pictures = None
    if tile is not None:
        pictures = _picture(tile, paths[0], mpp=mpp, student=student, device=device)
    query = SlidesQuery(
        at=tuple(_place(text, paths, "--at") for text in at),
        not_at=tuple(_place(text, paths, "--not-at") for text in not_at),
        pictures=pictures,
    )
    about = {
        "like_at": [_in_words(place) for place in query.at],
        "not_like_at": [_in_words(place) for place in query.not_at],
        "picture": "" if tile is None else tile.name,
    }
    return query, about


def _in_words(place: PlaceOf) -> str:
    return f"{place.store.stem}:{place.y:g},{place.x:g}"


def _place(text: str, paths: Sequence[Path], option: str) -> PlaceOf:
    """Return the place that ``STORE:Y,X`` names."""
    from napari_histodistill.maps import PlaceOf

    name, _, point = text.rpartition(":")
    if not name:
        msg = f"{option}: {text!r} names no slide; write STORE:Y,X."
        raise InputError(msg)
    y, x = parse_point(point, option)
    named = [
        path
        for path in paths
        if name in {path.name, path.stem} or Path(name).absolute() == path.absolute()
    ]
    if len(named) != 1:
        what = "several stores have" if named else "no store that is searched has"
        msg = f"{option}: {what} the name {name!r}; give the path of one of them."
        raise InputError(msg)
    return PlaceOf(named[0], y, x)


def _picture(
    path: Path, store: Path, *, mpp: float | None, student: str | None, device: str
) -> npt.NDArray[np.float32]:
    from napari_histodistill.maps import EmbeddingStore
    from napari_histodistill.maps.alike.picture import embed_picture
    from napari_histodistill.slides import open_slide

    made = EmbeddingStore.open(store)
    _refuse_picture_for(made)
    with open_slide(path, mpp=mpp) as picture:
        looks = maker_of(made, student, device=device)
        if looks.digest != made.provenance.student_digest:
            msg = (
                f"{store} was made by another student than this {looks.name}: their "
                "numbers cannot be compared; name the one that made it with --student."
            )
            raise InputError(msg)
        return embed_picture(picture, looks)


def _refuse_picture_for(store: EmbeddingStore) -> None:
    if store.provenance.mode != "tiles":
        msg = (
            f"--tile: {store.path} holds tokens, which see what lies around them, and "
            "a picture has nothing around it; search stores in tiles, or use --at."
        )
        raise InputError(msg)
    if store.provenance.stains:
        msg = (
            f"--tile: {store.path} is stain normalised, and a picture is not; use --at."
        )
        raise InputError(msg)


def _followed(work: Iterator[SearchProgress | SlidesSearched]) -> SlidesSearched:
    """Run a search to its end; say how far it is where it takes long."""
    from napari_histodistill.maps.alike.across_slides import SearchProgress

    said = time.monotonic()
    for report in work:
        if not isinstance(report, SearchProgress):
            return report
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            tell(f"searched {report.done / report.total:.0%}")
    msg = "a search ends with its answer"
    raise AssertionError(msg)


def _write(
    found: SlidesSearched,
    places: Sequence[FoundPlace],
    out: Path,
    about: dict[str, Any],
) -> dict[str, Path]:
    from napari_histodistill import __version__
    from napari_histodistill.export import places as written
    from napari_histodistill.export.record import PROGRAM

    made_by = found.slides[0].made_by
    facts = {
        "program": PROGRAM,
        "version": __version__,
        "model": made_by.student_name,
        "model_digest": made_by.student_digest,
        "mode": made_by.mode,
        "threshold": round(found.threshold, 6),
        **about,
    }
    looked_for = [*about["like_at"], *([about["picture"]] if about["picture"] else [])]
    notes = [
        f"Looked for: {', '.join(looked_for)}. Model: {made_by.student_name}, "
        f"{made_by.mode}. Listed from a similarity of {found.threshold:.2f} on, the "
        "same on all slides.",
    ]
    return {
        "places": written.write_places(places, out / "places.csv", provenance=facts),
        "slides": written.write_slides(found, out / "slides.csv", provenance=facts),
        "outlines": written.write_outlines(found, out / "outlines", provenance=facts),
        "page": written.write_page(
            found, places, _pictures(places), out / "places.html", notes=notes
        ),
    }


def _pictures(places: Sequence[FoundPlace]) -> list[PlacePicture]:
    """Return a picture of every place; each slide is opened once."""
    from napari_histodistill.export.places import PlacePicture
    from napari_histodistill.slides import open_slide

    pictures: dict[int, PlacePicture] = {}
    for answer in dict.fromkeys(one.answer for one in places):
        mine = [one for one in places if one.answer is answer]
        made_by = answer.made_by
        try:
            with open_slide(Path(made_by.slide_path)) as slide:
                if slide.info.digest != made_by.slide_digest:
                    msg = "the file there is not the one that was embedded"
                    raise InputError(msg)
                for one in mine:
                    pictures[one.rank] = PlacePicture(png=_tile(slide, one))
        except HistodistillError as error:
            words = f"No picture of {made_by.slide_name}: {error}"
            pictures |= {one.rank: PlacePicture(trouble=words) for one in mine}
    return [pictures[one.rank] for one in places]


def _tile(slide: Slide, found: FoundPlace) -> bytes:
    from PIL import Image

    from napari_histodistill.maps.alike.ranking import frame_around
    from napari_histodistill.slides.pyramid.resample import read_resampled

    frame = frame_around(found.answer.similarity.grid, found.place)
    pixels = read_resampled(slide, frame, height=PICTURE_PX, width=PICTURE_PX)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()


def _text(result: dict[str, Any]) -> str:
    with_places = sum(bool(one["places"]) for one in result["slides"])
    lines = [
        f"{len(result['places'])} places at or above {result['threshold']:.2f}; "
        f"{with_places} of {len(result['slides'])} slides have some"
    ]
    lines += [
        f"{r['rank']:3}  {r['score']:.2f}  {r['slide']} at {r['y']:.0f},{r['x']:.0f}  "
        f"{r['area_mm2']:.3f} mm²" + ("  (asked for)" if r["is_query"] else "")
        for r in result["places"]
    ]
    lines += list(result["outputs"].values())
    return "\n".join(lines)
