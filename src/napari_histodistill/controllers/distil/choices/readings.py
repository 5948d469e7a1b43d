"""How partners with pixels are read: what is asked, what was found, and words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.labels import LabelScan, scan_labels
from napari_histodistill.distill.layers.marker import (
    MarkerStains,
    StainOrigin,
    find_marker_stains,
)
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.layers.marker import Direction
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

_NUMBER = re.compile(r"[-+]?\d*[.,]?\d+")


@dataclass(frozen=True, slots=True)
class PartnerChoice:
    """What a person said of a partner with pixels; None where nothing was said.

    Attributes
    ----------
    reading : PartnerReading or None
        How it is read.
    unlabelled : Unlabelled or None
        What places of labels without a label are.
    stains : MarkerStains or None
        Stains of an image read as its marker.
    """

    reading: PartnerReading | None = None
    unlabelled: Unlabelled | None = None
    stains: MarkerStains | None = None

    @property
    def parts(self) -> tuple[PartnerReading | None, ...]:
        """The readings that make one partner each."""
        return (None,) if self.reading is None else self.reading.parts

    @property
    def needs_stains(self) -> bool:
        """Whether a marker is separated."""
        return PartnerReading.MARKER in self.parts

    def content(self) -> dict[str, Any]:
        """Return it for JSON; measured stains are measured again."""
        given = self.stains is not None and self.stains.origin is StainOrigin.GIVEN
        return {
            "reading": None if self.reading is None else self.reading.value,
            "unlabelled": None if self.unlabelled is None else self.unlabelled.value,
            "stains": self.stains.content() if self.stains and given else None,
        }

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> PartnerChoice:
        """Return what :meth:`content` gave; what is missing was not said."""
        reading, unlabelled = content.get("reading"), content.get("unlabelled")
        stains = content.get("stains")
        return cls(
            None if reading is None else PartnerReading(reading),
            None if unlabelled is None else Unlabelled(unlabelled),
            None if stains is None else _stains(stains),
        )


def _stains(content: Mapping[str, Any]) -> MarkerStains:
    haematoxylin, marker, glass = (
        _direction(content[name]) for name in ("haematoxylin", "marker", "glass")
    )
    return MarkerStains(haematoxylin, marker, glass, StainOrigin(content["origin"]))


def _direction(values: Sequence[float]) -> Direction:
    red, green, blue = map(float, values)
    return red, green, blue


@dataclass(frozen=True, slots=True, eq=False)
class PartnerLook:
    """What a look into a partner found.

    Attributes
    ----------
    layer : hashable
        The viewer's key of its layer.
    slide : Slide
        Its pixels.
    labels : LabelScan or None
        Of labels.
    stains : MarkerStains or None
        Of an image.
    """

    layer: Hashable
    slide: Slide
    labels: LabelScan | None = None
    stains: MarkerStains | None = None


def look_work(
    layer: Hashable, slide: Slide, name: str, named: Mapping[int, str] | None
) -> Work:
    """Return the work that counts labels, or measures the stains of an image.

    Parameters
    ----------
    layer : hashable
        The viewer's key of the layer.
    slide : Slide
        Its pixels.
    name : str
        Of the layer.
    named : mapping or None
        Names of a layer of labels' numbers; None for an image.
    """

    def work(cancel: CancelToken) -> Iterator[PartnerLook]:
        if named is None:
            yield PartnerLook(layer, slide, stains=find_marker_stains(slide))
        else:
            scan = scan_labels(slide, name, named, cancel=cancel)
            yield PartnerLook(layer, slide, labels=scan)

    return work


def reading_titles(scan: LabelScan | None) -> dict[PartnerReading, str]:
    """Return what may be chosen, in words: for an image, or for labels once counted."""
    if scan is None:
        return {
            PartnerReading.LOOKS: "as it looks",
            PartnerReading.MARKER: "its marker",
            PartnerReading.BOTH: "both",
        }
    return {
        PartnerReading.CLASSES: f"classes ({scan.class_count:,} found)",
        PartnerReading.OBJECTS: f"objects ({scan.object_count:,} found)",
    }


UNLABELLED_TITLES = {
    Unlabelled.UNKNOWN: "unknown",
    Unlabelled.BACKGROUND: "background",
}


def why_only_background(scan: LabelScan, reading: PartnerReading) -> str:
    """Return why places without a label must be background; "" if they need not."""
    if scan.unlabelled(reading) is Unlabelled.UNKNOWN:
        return ""
    if reading is PartnerReading.OBJECTS:
        return "Objects can only be told from what is not labelled."
    return "A single class can only be told from what is not labelled."


def typed_vector(text: str, stain: str) -> Direction:
    """Return the vector that a person typed.

    Raises
    ------
    InputError
        If it is not three numbers.
    """
    numbers = _NUMBER.findall(re.sub(r"[,;]\s", " ", text))
    if len(numbers) != 3 or not any(float(n.replace(",", ".")) for n in numbers):
        msg = (
            f"The stain vector of the {stain} is three numbers, for red, green and "
            "blue, such as 0.27 0.57 0.78."
        )
        raise InputError(msg)
    return _direction([float(n.replace(",", ".")) for n in numbers])


def say_stains(stains: MarkerStains | None) -> str:
    """Return where stain vectors come from."""
    if stains is None:
        return "The stains are being measured."
    if stains.origin is StainOrigin.MEASURED:
        return "Stain vectors measured on this slide."
    if stains.origin is StainOrigin.GIVEN:
        return "Stain vectors as typed."
    return f"The usual vectors of haematoxylin and DAB. {stains.why}"
