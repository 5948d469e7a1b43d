"""The ways in which a partner with pixels can be read: asked for, never guessed."""

from __future__ import annotations

from enum import Enum


class PartnerReading(Enum):
    """How a partner with pixels is read; the value is its name in files."""

    LOOKS = "looks"
    """An image as it looks: its colours or channels."""
    MARKER = "marker"
    """Brightfield immunohistochemistry: the amount of its marker (brown, red)."""
    BOTH = "both"
    """As it looks and its marker: two partners of one layer."""
    CLASSES = "classes"
    """Labels: every number, or name, is a class."""
    OBJECTS = "objects"
    """Labels: numbers count objects; what is learned is inside and outside."""

    @property
    def parts(self) -> tuple[PartnerReading, ...]:
        """The readings that make one partner each."""
        if self is PartnerReading.BOTH:
            return PartnerReading.LOOKS, PartnerReading.MARKER
        return (self,)

    @property
    def is_of_labels(self) -> bool:
        """Whether it is a way to read labels; the others are ways to read images."""
        return self in {PartnerReading.CLASSES, PartnerReading.OBJECTS}


class Unlabelled(Enum):
    """What a place without a label is; the value is its name in files."""

    UNKNOWN = "unknown"
    """Nobody said what is there: it does not count."""
    BACKGROUND = "background"
    """Everything was labelled, and there is nothing."""
