"""Drafts of *Distil a student*: landmarks with their alignment, and kept sections.

A kept section is written down as the files it came from, which are opened and laid out
again: pairs themselves are large, and are in a run's folder once it was started.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.controllers.distil.align.approval import SectionsSaid
from napari_histodistill.controllers.distil.choices.readings import PartnerChoice
from napari_histodistill.controllers.distil.pairs import Planned, plan_work
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.distill.pairs.plan import Sampling
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.distill.sections.record import (
    alignment_content,
    alignment_of,
)
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, MppOrigin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]
    Opener = Callable[..., Slide]

_NOT_SAID = SectionRelation.UNKNOWN.value
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkDraft:
    """Landmarks of a pair of layers, and how the partner was laid.

    Attributes
    ----------
    sparse_px, dense_px : ndarray
        ``(n, 2)`` each, level-0 pixels; the centre of the first is (0, 0).
    alignment : SectionAlignment or None
        How the partner was laid.
    """

    sparse_px: Doubles
    dense_px: Doubles
    alignment: SectionAlignment | None

    def content(self) -> dict[str, Any]:
        """Return it for JSON."""
        known = self.alignment
        return {
            "sparse_px": self.sparse_px.tolist(),
            "dense_px": self.dense_px.tolist(),
            "registration": None if known is None else alignment_content(known),
        }

    @classmethod
    def read(cls, content: dict[str, Any]) -> LandmarkDraft:
        """Return what :meth:`content` gave.

        Raises
        ------
        InputError
            If it is damaged.
        """
        try:
            sides = [
                np.array(content[name], np.float64).reshape(-1, 2)
                for name in ("sparse_px", "dense_px")
            ]
            if not all(np.isfinite(side).all() for side in sides):
                msg = "a landmark is not a number"
                raise ValueError(msg)
            known = content["registration"]
            found = None if known is None else alignment_of(known)
        except _DAMAGED as error:
            msg = f"this draft is damaged ({error}): discard it."
            raise InputError(msg) from error
        return cls(sides[0], sides[1], found)


def why_not_kept(planned: Planned) -> str:
    """Return why a kept section cannot be found again later; "" if it can."""
    slides = [planned.plan.sparse, *(p.slide for p in planned.partners)]
    if any(slide is not None and slide.path is None for slide in slides):
        return "a layer of it is not a slide's file"
    if any(p.spots is not None for p in planned.partners):
        return "spots are not a slide's file"
    return ""


def kept_content(kept: Sequence[Planned]) -> dict[str, Any]:
    """Return sections for JSON; those that could not be found again are left out."""
    return {"sections": [_section(x) for x in kept if not why_not_kept(x)]}


def count_sections(content: dict[str, Any]) -> int:
    """Return how many sections a draft has; 0 for a damaged one."""
    found = content.get("sections")
    return len(found) if isinstance(found, list) else 0


def restore_work(content: dict[str, Any], opener: Opener) -> Work:
    """Return the work that opens kept sections and lays out their pairs again.

    Parameters
    ----------
    content : dict
        As :func:`kept_content` returns.
    opener : callable
        ``(path, image=…) -> Slide``.
    """

    def work(cancel: CancelToken) -> Iterator[Planned]:
        done: list[Planned] = []
        for section in content["sections"]:
            cancel.check()
            try:
                sparse = _opened(section["sparse"], opener)
                partners = [_partner(x, opener) for x in section["partners"]]
                sampling = Sampling(**section["sampling"])
                said = SectionsSaid(
                    SectionRelation(section.get("relation", _NOT_SAID))
                ).with_approval(str(section.get("approved_by", "")), partners)
            except _DAMAGED as error:
                msg = f"this draft is damaged ({error}): discard it."
                raise InputError(msg) from error
            for planned in plan_work(sparse, partners, sampling, done)(cancel):
                found = said.put_into(planned)
                done.append(found)
                yield found

    return work


def _section(planned: Planned) -> dict[str, Any]:
    sampling, origin = planned.plan.sampling, planned.plan.origin
    said = {} if origin is None else origin.content()
    return {
        "relation": said.get("relation", _NOT_SAID),
        "approved_by": said.get("approved_by", ""),
        "sparse": _slide(planned.plan.sparse),
        "partners": [
            {
                "name": p.name,
                "kind": p.kind.value,
                "slide": None if p.slide is None else _slide(p.slide),
                "lies": p.lies.tolist(),
                "named": {str(k): name for k, name in p.named.items()},
                "choice": p.choice.content(),
                "registration": None
                if p.alignment is None
                else alignment_content(p.alignment),
            }
            for p in planned.partners
        ],
        "sampling": {
            "mpp": sampling.mpp,
            "tile_px": sampling.tile_px,
            "min_tissue": sampling.min_tissue,
            "limit": sampling.limit,
            "seed": sampling.seed,
        },
    }


def _slide(slide: Slide) -> dict[str, Any]:
    info, mpp = slide.info, slide.mpp
    return {
        "path": str(slide.path),
        "image": info.image,
        "section": info.section,
        "digest": info.digest,
        "colour": info.is_rgb,
        "mpp": None
        if mpp is None
        else {"y": mpp.y, "x": mpp.x, "source": mpp.source, "origin": mpp.origin.value},
    }


def _partner(content: dict[str, Any], opener: Opener) -> Partner:
    known, slide = content["registration"], content["slide"]
    lies = np.array(content["lies"], np.float64)
    if lies.shape != (3, 3) or not np.isfinite(lies).all():
        msg = "how a partner lies is not a matrix"
        raise ValueError(msg)
    return Partner(
        str(content["name"]),
        PartnerKind(content["kind"]),
        slide=None if slide is None else _opened(slide, opener),
        lies=lies,
        alignment=None if known is None else alignment_of(known),
        named={int(k): str(v) for k, v in content.get("named", {}).items()},
        choice=PartnerChoice.read(content.get("choice", {})),
    )


def _opened(content: dict[str, Any], opener: Opener) -> Slide:
    """Open a slide as it was: its image, its colours, its µm per pixel."""
    path = Path(content["path"])
    slide = opener(path, image=int(content["image"]))
    if slide.info.section != content["section"]:
        msg = (
            f"{path.name} is another slide than the one that was kept: discard the "
            "draft, or put the file back."
        )
        raise InputError(msg)
    mpp = content["mpp"]
    if content["colour"] and slide.info.needs_rgb:
        from napari_histodistill.slides.formats.zarr_colours import taken_for_colour

        slide = taken_for_colour(slide)
    if slide.info.digest != content["digest"]:
        from napari_histodistill.slides.tissue.icc import in_srgb

        slide = in_srgb(slide)
    if mpp is None:
        return slide
    given = Mpp(mpp["y"], mpp["x"], mpp["source"], MppOrigin(mpp["origin"]))
    return slide.with_info(replace(slide.info, mpp=given))
