"""What a person says of both sections: whether they are one, and who approved the fit.

It goes into the provenance of the pairs. An approval is of the alignment that was
looked at: once a partner lies otherwise, nobody has approved it. The name is a setting,
kept for the next time; ticking is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.cache import settings_dir
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.distil.pairs import Planned
    from napari_histodistill.controllers.distil.partners import Partner

    Doubles = npt.NDArray[np.float64]

RELATION_TITLES = {
    SectionRelation.UNKNOWN: "one or two: not said",
    SectionRelation.SAME: "one, stained or scanned twice",
    SectionRelation.CONSECUTIVE: "two consecutive ones",
}
LONGEST_NAME = 100
"""Letters of a name."""

_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class SectionsSaid:
    """What a person says of the H&E and its partners.

    Attributes
    ----------
    relation : SectionRelation
        Whether they are one section.
    approved_by : str
        Who looked at how they lie; "" for nobody.
    approved : tuple of ndarray
        How every partner lay then, ``(3, 3)``.
    """

    relation: SectionRelation = SectionRelation.UNKNOWN
    approved_by: str = ""
    approved: tuple[Doubles, ...] = ()

    def with_approval(self, by: str, partners: Sequence[Partner]) -> SectionsSaid:
        """Return the same with an approval of how partners lie; by "", with none."""
        lies = tuple(partner.matrix for partner in partners) if by else ()
        return replace(self, approved_by=by, approved=lies)

    def approver_of(self, partners: Sequence[Partner]) -> str:
        """Return who approved how partners lie now; "" for nobody."""
        same = len(partners) == len(self.approved) and all(
            np.allclose(partner.matrix, lay)
            for partner, lay in zip(partners, self.approved, strict=True)
        )
        return self.approved_by if same else ""

    def put_into(self, planned: Planned) -> Planned:
        """Return pairs with this in their provenance.

        Who approved, as the alignment's file says, stays where nobody did here.
        """
        origin = planned.plan.origin
        if origin is None:
            return planned
        by = self.approver_of(planned.partners) or origin.approved_by
        said = replace(origin, relation=self.relation, approved_by=by)
        if said == origin:
            return planned
        return replace(planned, plan=replace(planned.plan, origin=said))


def read_approver() -> str:
    """Return the name that was typed last on this computer; "" if none was.

    Raises
    ------
    InputError
        If the file with it is damaged.
    """
    path = _path()
    if not path.exists():
        return ""
    try:
        if not is_plain(path) or path.stat().st_size > _MAX_BYTES:
            msg = "a small, plain file is needed"
            raise ValueError(msg)
        name = json.loads(path.read_text(encoding="utf-8"))["name"]
        return str(name)[:LONGEST_NAME]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        msg = f"{path}: the name in it cannot be used ({error}): type it again."
        raise InputError(msg) from error


def write_approver(name: str) -> None:
    """Keep a name for the next time.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    path = _path()
    try:
        write_whole(path, json.dumps({"name": name}) + "\n", private=True)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): type the name next time."
        raise InputError(msg) from error


def _path() -> Path:
    return settings_dir() / "approver.json"
