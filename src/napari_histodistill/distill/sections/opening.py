"""Opening a section's files: the H&E, and a partner with pixels or spots."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.exchange.frames import PointFrame, SectionFrames
from napari_histodistill.distill.layers.marker import find_marker_stains
from napari_histodistill.distill.pairs.provenance import ImageOrigin
from napari_histodistill.distill.sections.files import PartnerSort
from napari_histodistill.distill.spots.spot_files import holds_spots, read_spots
from napari_histodistill.distill.spots.spot_tables import check_overlap, place_spots
from napari_histodistill.distill.spots.spot_wish import (
    SeveralLibrariesError,
    SpotWish,
)
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.opening import open_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.distill.layers.marker import MarkerStains
    from napari_histodistill.distill.layers.partners import Spots
    from napari_histodistill.distill.sections.files import SectionFiles
    from napari_histodistill.distill.spots.spot_tables import SpotTable
    from napari_histodistill.slides.pyramid.slide import Slide

_SAME_SHAPE = 0.005
_WITH_MARKER = (PartnerSort.MARKER, PartnerSort.BOTH)


@dataclass(frozen=True, slots=True, eq=False)
class OpenSection:
    """A section whose files are open.

    Attributes
    ----------
    files : SectionFiles
        As a person named them.
    sparse : Slide
        The H&E.
    sort : PartnerSort
        What the partner is read as.
    dense : Slide or None
        A partner with pixels.
    spots : Spots or None
        Or one with spots, in µm of its own world.
    notes : tuple of str
        Remarks on the files.
    stains : MarkerStains or None
        Those that a person gave; None for those that are measured.
    """

    files: SectionFiles
    sparse: Slide
    sort: PartnerSort
    dense: Slide | None
    spots: Spots | None
    notes: tuple[str, ...]
    stains: MarkerStains | None = None

    @property
    def frames(self) -> SectionFrames:
        """Both images, for positions of other programs.

        Raises
        ------
        InputError
            If the partner has no pixels to count in.
        """
        if self.dense is None:
            msg = (
                f"{self.files.partner}: spots have no pixels that landmarks could "
                "count in: align the picture they lie on, and give its transform as "
                "JSON of this program."
            )
            raise InputError(msg)
        return SectionFrames(
            PointFrame.of(self.sparse),
            PointFrame.of(self.dense),
            self.files.alignment.fixed,
        )

    @property
    def partner_name(self) -> str:
        """Name of the partner, for messages."""
        return self.files.partner.name if self.dense is None else self.dense.name

    def origins(self) -> tuple[ImageOrigin, ImageOrigin]:
        """Return where the H&E and its partner come from."""
        if self.dense is not None:
            return ImageOrigin.of(self.sparse), ImageOrigin.of(self.dense)
        partner = self.files.partner
        own = ImageOrigin(partner.name, digest_path(partner))
        return ImageOrigin.of(self.sparse), own


@contextmanager
def open_section(files: SectionFiles) -> Iterator[OpenSection]:
    """Open a section's files, and close them after the block.

    Raises
    ------
    InputError
        If one cannot be opened or does not fit: the message names it and what to do.
    """
    files.alignment.check()
    with ExitStack() as stack:
        sparse = stack.enter_context(
            open_slide(files.he, mpp=files.mpp, image=files.image, rgb=files.rgb)
        )
        _check_he(sparse)
        notes = [f"{sparse.name}: {note}" for note in sparse.info.notes]
        if files.sort is PartnerSort.SPOTS or (
            files.sort is None and holds_spots(files.partner)
        ):
            _refuse_stains(files.partner.name, PartnerSort.SPOTS, files)
            table = _read_spots(files)
            notes += [f"{table.name}: {note}" for note in table.notes]
            spots = _placed(table, files, sparse)
            yield OpenSection(
                files, sparse, PartnerSort.SPOTS, None, spots, tuple(notes)
            )
            return
        dense = stack.enter_context(
            open_slide(files.partner, mpp=files.partner_mpp, image=files.partner_image)
        )
        notes += [f"{dense.name}: {note}" for note in dense.info.notes]
        dense = _with_scale(dense, sparse, files)
        sort = files.sort or _sort_of(dense, files)
        _check_sort(dense, sort)
        _refuse_wish(dense.name, files)
        stains = _given_stains(dense, sort, files)
        yield OpenSection(files, sparse, sort, dense, None, tuple(notes), stains)


def _read_spots(files: SectionFiles) -> SpotTable:
    """Read spots as they are wanted; what has to be chosen is named as an option."""
    wish = files.wish
    try:
        return read_spots(
            files.partner,
            most_genes=wish.most_genes,
            library=wish.library,
            genes=wish.genes,
            score=wish.score,
        )
    except SeveralLibrariesError as error:
        msg = f"{str(error).rstrip('.')}: say --library NAME."
        raise InputError(msg) from error


def _refuse_wish(name: str, files: SectionFiles) -> None:
    """Refuse what can only be wanted of spots."""
    if files.wish != SpotWish():
        msg = (
            f"{name}: is read as an image, which has no libraries or genes: leave out "
            "--library, --genes, --gene-score and --most-genes, or say --as spots."
        )
        raise InputError(msg)


def _refuse_stains(name: str, sort: PartnerSort, files: SectionFiles) -> None:
    """Refuse stain vectors of what has no stains to separate."""
    if files.stains is not None and sort not in _WITH_MARKER:
        msg = (
            f"{name}: is read as {sort.value}, where no stains are separated: leave "
            "out --stain-vectors, or say --as marker or --as both."
        )
        raise InputError(msg)


def _given_stains(
    dense: Slide, sort: PartnerSort, files: SectionFiles
) -> MarkerStains | None:
    """Return the stains of given vectors, on this slide's glass."""
    _refuse_stains(dense.name, sort, files)
    if files.stains is None:
        return None
    return find_marker_stains(dense).with_vectors(*files.stains)


def _check_he(sparse: Slide) -> None:
    if sparse.info.needs_rgb:
        msg = (
            f"{sparse.name}: the file does not say whether its three channels are red, "
            "green and blue; if they are, say so with --rgb."
        )
        raise InputError(msg)
    if not sparse.info.is_rgb or sparse.dtype != np.uint8:
        msg = (
            f"{sparse.name}: the first file is the H&E, in 8-bit colours; this one has "
            f"{sparse.dtype} pixels with the channels "
            f"{', '.join(sparse.info.channels[:4])}."
        )
        raise InputError(msg)
    sparse.require_mpp()


def _with_scale(dense: Slide, sparse: Slide, files: SectionFiles) -> Slide:
    """Return the partner with µm per pixel: of one frame with the H&E it needs none."""
    if dense.usable_mpp is not None:
        return dense
    mpp = sparse.require_mpp()
    if files.alignment.in_register:
        per = np.array(sparse.shape) * (mpp.y, mpp.x) / dense.shape
        if abs(per[0] / per[1] - 1) < _SAME_SHAPE:
            source = "as large as the H&E, which it lies on"
            return dense.with_mpp(Mpp(float(per[0]), float(per[1]), source, mpp.origin))
    why = dense.mpp.problem if dense.mpp else "the file does not state its µm per pixel"
    msg = f"{dense.name}: {why}; give it with --partner-mpp."
    raise InputError(msg)


def _sort_of(dense: Slide, files: SectionFiles) -> PartnerSort:
    if dense.info.is_rgb and dense.dtype == np.uint8:
        return PartnerSort.IMAGE
    if len(dense.info.channels) == 1 and dense.dtype.kind in "bui":
        msg = (
            f"{files.partner}: one channel of whole numbers may be intensities or "
            "labels: say --as channels, --as classes (every number is a class) or "
            "--as objects (numbers count objects)."
        )
        raise InputError(msg)
    return PartnerSort.CHANNELS


def _check_sort(dense: Slide, sort: PartnerSort) -> None:
    colours = dense.info.is_rgb and dense.dtype == np.uint8
    of_colours = {PartnerSort.IMAGE, PartnerSort.MARKER, PartnerSort.BOTH}
    if sort in of_colours and not colours:
        msg = (
            f"{dense.name}: has {dense.dtype} pixels with the channels "
            f"{', '.join(dense.info.channels[:4])}, which are no colours: say --as "
            "channels."
        )
        raise InputError(msg)
    if sort is PartnerSort.CHANNELS and colours:
        msg = f"{dense.name}: its channels are colours: say --as image or --as marker."
        raise InputError(msg)


def _placed(table: SpotTable, files: SectionFiles, sparse: Slide) -> Spots:
    if files.partner_mpp is not None:
        spots = place_spots(table, "px", files.partner_mpp)
    elif table.unit is None or (table.unit == "px" and table.um_per_px is None):
        own = sparse.require_mpp().mean
        msg = (
            f"{files.partner}: does not say in which unit its positions are: give "
            f"--partner-mpp, µm per pixel of the image that they count in (the H&E's "
            f"is {own:.4g}; 1 for µm)."
        )
        raise InputError(msg)
    else:
        spots = place_spots(table)
    if files.alignment.transform is None:
        mpp = sparse.require_mpp()
        size = sparse.shape[0] * mpp.y, sparse.shape[1] * mpp.x
        check_overlap(spots, size, sparse.name)
    return spots
