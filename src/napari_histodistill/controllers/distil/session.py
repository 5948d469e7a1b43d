"""The session of *Distil a student*: layers, alignment, pairs, the run. No window.

Four steps that can be walked back; a change in one forgets what later ones decided.
Every step says in one line what it decided, or in one sentence why it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_histodistill.controllers.distil.align.alignment import (
    as_before,
    refined,
    say_alignment,
)
from napari_histodistill.controllers.distil.align.approval import SectionsSaid
from napari_histodistill.controllers.distil.classes import with_classes
from napari_histodistill.controllers.distil.pairs import (
    Planned,
    classes_on_offer,
    inputs_of,
    plan_work,
    section_of,
    why_no_pairs,
    write_work,
)
from napari_histodistill.controllers.distil.partners import (
    MEANINGS,
    STUDENT_WORDS,
    LayerKey,
    Partner,
    as_aligned,
    as_read,
    first_with_pixels,
    lie_alike,
    names_of,
    same_scale,
)
from napari_histodistill.controllers.distil.recipe import TrainingWish, preset_recipe
from napari_histodistill.controllers.distil.sections import (
    count_pairs,
    say_learning,
    say_pairs,
    training_share,
)
from napari_histodistill.controllers.distil.settings import Draft, say_start
from napari_histodistill.distill.pairs.enlarging import why_enlarged
from napari_histodistill.distill.pairs.plan import Sampling
from napari_histodistill.distill.pairs.pool import section_names
from napari_histodistill.distill.recipes.presets import (
    LEAST_PAIRS,
    PRESETS,
    PresetKey,
)
from napari_histodistill.distill.runs.folder import REPORT, STUDENT
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.controllers.distil.align.fitting import Fitted, FitWish
    from napari_histodistill.controllers.distil.choices.readings import PartnerChoice
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.layers.refinement import Refinement
    from napari_histodistill.distill.pairs.provenance import (
        SectionOrigin,
        SectionRelation,
    )
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.recipes.form import Field, FieldPath
    from napari_histodistill.distill.recipes.presets import TileLabels
    from napari_histodistill.distill.runs.process import RunProcess
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.slides import Slide


@dataclass(slots=True)
class DistilSession:
    """State behind the window; belongs to the GUI thread.

    Attributes
    ----------
    sparse : Slide or None
        The H&E.
    partners : tuple of Partner
        The layers that teach; several at once are allowed.
    on : LayerKey or None
        The H&E's layer.
    sampling : Sampling
        Size of the tiles.
    planned : Planned or None
        The pairs of the present layers, once laid out.
    kept : tuple of Planned
        Pairs of sections that were on the screen before; the student learns from all.
    trained : tuple of Planned
        Pairs that the run was started with from here.
    held_out_section : str
        Digest of the H&E of the section that is held out whole; "" for regions of
        all of them.
    preset : {"quick", "careful", "paper"}
        Key of the preset.
    with_partner : bool
        False trains the control that never sees a partner.
    learns_classes : bool
        Whether the classes of a mask are learned, where there are some.
    title : str
        Title of the student, as typed; empty for a neutral one.
    typed : dict of path to str
        Changes by hand of the preset's settings, by their path.
    run : RunProcess or None
        The training, from here or found again.
    run_of : tuple of Planned
        Pairs that the run learns from, if it was started from here.
    run_from : tuple of SectionOrigin
        Where they come from, of a run that was found again.
    said : SectionsSaid
        What a person says of the layers: whether they are one section, who approved.
    """

    sparse: Slide | None = None
    partners: tuple[Partner, ...] = ()
    sampling: Sampling = field(default_factory=lambda: Sampling(mpp=0.5, tile_px=128))
    planned: Planned | None = None
    kept: tuple[Planned, ...] = ()
    trained: tuple[Planned, ...] = ()
    held_out_section: str = ""
    preset: PresetKey = PRESETS[0].key
    with_partner: bool = True
    learns_classes: bool = False
    title: str = ""
    typed: dict[FieldPath, str] = field(default_factory=dict)
    run: RunProcess | None = None
    run_of: tuple[Planned, ...] = ()
    run_from: tuple[SectionOrigin, ...] = ()
    on: LayerKey | None = None
    said: SectionsSaid = field(default_factory=SectionsSaid)

    # --- what a person does ----------------------------------------------------------

    def choose(
        self,
        sparse: Slide | None,
        partners: Sequence[Partner],
        on: LayerKey | None = None,
    ) -> None:
        """Choose layers; pairs are forgotten, and what was set for other partners.

        Alignments stay where they still hold: layers chosen before, the same H&E and
        µm. Settings stay where sections were kept: they are for the first's partner.

        Parameters
        ----------
        sparse : Slide or None
            The H&E.
        partners : sequence of Partner
            As their layers now say.
        on : LayerKey, optional
            The H&E's layer.
        """
        partners = [as_read(partner, self.partners) for partner in partners]
        stays = on is not None and on.is_layer(self.on)
        if stays and same_scale(self.sparse, sparse):
            partners = [as_aligned(partner, self.partners) for partner in partners]
        self.on = on
        others = names_of(partners) != names_of(self.partners)
        if not self.kept and others:
            self.typed = {k: v for k, v in self.typed.items() if k[0] != "dense"}
        if others or not stays:
            self.said = SectionsSaid()
        self.sparse, self.partners = sparse, tuple(partners)
        self.planned = None

    def is_as_chosen(self, sparse: Slide | None, partners: Sequence[Partner]) -> bool:
        """Whether layers that say this now say what they said when chosen."""
        return sparse is self.sparse and lie_alike(partners, self.partners)

    def choose_preset(self, key: PresetKey) -> None:
        """Start from another preset; what was changed by hand is forgotten."""
        if key != self.preset:
            self.typed = {}
        self.preset = key
        self.trained = ()

    def type_setting(self, asked: Field, text: str) -> None:
        """Take what a person typed into a field of the advanced settings."""
        self.typed = dict(self.draft().type(asked, text).typed)
        self.trained = ()

    def reset_settings(self, path: FieldPath | None = None) -> None:
        """Put one setting, or all of them, back to the preset's."""
        self.typed = dict(self.draft().reset(path).typed)
        self.trained = ()

    def train_with_partner(self, *, use: bool) -> None:
        """Train with the partner, or the control that never sees it."""
        self.with_partner = use
        self.trained = ()

    def learn_classes(self, *, learn: bool) -> None:
        """Learn the classes of a mask among the partners, with a head; or not."""
        self.learns_classes = learn
        self.trained = ()

    def call_student(self, title: str) -> None:
        """Give the student that is trained next a title."""
        self.title = title
        self.trained = ()

    def take_pairs(self, planned: Planned) -> bool:
        """Take pairs that were laid out; return whether they are of the layers of now.

        Meanwhile another slide may have been chosen, or a partner laid otherwise.
        """
        now = self.partners
        same = len(planned.partners) == len(now) and all(
            one is other for one, other in zip(planned.partners, now, strict=True)
        )
        if not same or planned.plan.sparse is not self.sparse:
            return False
        self.planned = planned
        return True

    def mark_trained(self, sections: tuple[Planned, ...]) -> None:
        """Note that a run is started with the pairs of these sections."""
        self.trained = sections

    def follow(self, run: RunProcess) -> None:
        """Watch a run, started here or found again."""
        if self.run is not None and self.run.folder != run.folder:
            self.run_from = ()
        self.run, self.run_of = run, self.trained

    def know_origins(self, origins: tuple[SectionOrigin, ...]) -> None:
        """Take where the pairs of a run come from that was found again."""
        self.run_from = origins

    def sample(self, mpp: float, tile_px: int) -> None:
        """Choose the size of the tiles; pairs are forgotten.

        Raises
        ------
        InputError
            If a number is out of range, or kept sections have tiles of another size.
        """
        if not (0.05 <= mpp <= 50 and 16 <= tile_px <= 1024):
            msg = (
                f"Tiles of {tile_px} px at {mpp:g} µm/px: choose 16 to 1024 px at "
                "0.05 to 50 µm/px."
            )
            raise InputError(msg)
        changed = replace(self.sampling, mpp=mpp, tile_px=tile_px)
        if self.kept and changed != self.kept[0].plan.sampling:
            msg = "Kept sections have tiles of another size: use that, or forget them."
            raise InputError(msg)
        self.sampling = changed
        self.planned = None

    def keep(self) -> None:
        """Keep the pairs at hand; another section's are laid out next."""
        if self.planned is not None:
            self.kept = (*self.kept, self.said.put_into(self.planned))
            self.planned = None

    def put_kept(self, kept: tuple[Planned, ...]) -> None:
        """Keep sections that were kept before.

        Raises
        ------
        InputError
            If others are kept by now, or the section at hand is one of them.
        """
        here = None if self.sparse is None else self.sparse.info.section
        known = [section_of(x) for x in kept]
        if self.kept or (self.planned is not None and here in known):
            msg = "Sections are kept already: forget them first, then restore."
            raise InputError(msg)
        self.kept = kept
        if kept:
            self.sampling = kept[0].plan.sampling

    def forget_kept(self) -> None:
        """Forget the sections that were kept; the pairs at hand stay."""
        self.kept = ()

    def hold_out(self, section: int | None) -> None:
        """Hold out one of :attr:`sections` whole; None for regions of all of them."""
        chosen = None if section is None else self.sections[section]
        self.held_out_section = "" if chosen is None else section_of(chosen)
        self.trained = ()

    def take_fit(self, fitted: Fitted, now: FitWish | None) -> bool:
        """Lay the aligned partner by landmarks, if they are still what is asked about.

        Parameters
        ----------
        fitted : Fitted
            What a job found.
        now : FitWish or None
            What it would be asked now.

        Returns
        -------
        bool
            Whether the partner has this fit now; pairs are then forgotten.
        """
        if self.aligned is None or not fitted.wish.is_like(now):
            return False
        self.put_alignment(self.aligned, fitted.alignment())
        return True

    def put_alignment(self, partner: int, found: SectionAlignment | None) -> None:
        """Take an alignment, or go back to how the layers lie."""
        was = self.partners[partner]
        self.put_partner(
            partner, replace(was, alignment=found, refinement=None, earlier=None)
        )

    def take_refinement(self, started: Partner, found: Refinement) -> bool:
        """Lay the aligned partner as a refinement found, if it is accepted.

        Parameters
        ----------
        started : Partner
            The partner that it was started for.
        found : Refinement
            What it found.

        Returns
        -------
        bool
            Whether the partner lies otherwise now; False also where it is no longer
            the one that is aligned, or was laid otherwise meanwhile.
        """
        place = self.aligned
        if place is None or self.partners[place] is not started or not found.accepted:
            return False
        self.put_partner(place, refined(started, found))
        return True

    def take_found(self, started: Partner, found: SectionAlignment) -> bool:
        """Lay the aligned partner by a search or an offer; it can be undone.

        Returns
        -------
        bool
            Whether it lies so now; False where ``started`` is no longer the one that is
            aligned, or was laid otherwise meanwhile.
        """
        place = self.aligned
        if place is None or self.partners[place] is not started:
            return False
        self.put_partner(place, started.laid(found))
        return True

    def undo(self) -> bool:
        """Lay the aligned partner as before it was last refined, found or turned.

        Returns
        -------
        bool
            Whether there was something to undo.
        """
        partner, place = self.aligned_partner, self.aligned
        before = None if partner is None else as_before(partner)
        if place is None or before is None:
            return False
        self.put_partner(place, before)
        return True

    def put_partner(self, partner: int, changed: Partner) -> None:
        """Put one of the partners as it now lies; pairs are forgotten."""
        partners = list(self.partners)
        partners[partner] = changed
        self.partners, self.planned = tuple(partners), None

    def relate(self, relation: SectionRelation) -> None:
        """Take whether both are one section, as a person states it."""
        self.said = replace(self.said, relation=relation)

    def approve(self, by: str) -> None:
        """Note who approves how the partners lie; by "", that nobody does."""
        self.said = self.said.with_approval(by.strip(), self.partners)

    def read_as(self, partner: int, choice: PartnerChoice) -> None:
        """Read a partner so; pairs and settings for partners are forgotten."""
        self.typed = {k: v for k, v in self.typed.items() if k[0] != "dense"}
        self.put_partner(partner, replace(self.partners[partner], choice=choice))

    # --- why not, and what was decided -----------------------------------------------

    @property
    def why_no_pairs(self) -> str:
        """Reason why pairs cannot be laid out; empty if they can."""
        return why_no_pairs(self.sparse, self.partners, self.kept)

    @property
    def why_no_training(self) -> str:
        """Reason why a training cannot start; empty if it can."""
        if not self.sections:
            return self.why_no_pairs or "Preview the pairs first."
        if self.training_pairs < PRESETS[0].fewest // 2:
            return (
                f"{self.training_pairs} pairs to train on are too few: choose smaller "
                "tiles, or add a section."
            )
        if self.typed:
            problems = self.draft().problems()
            if problems:
                return f"Advanced: {next(iter(problems.values()))}"
        return ""

    @property
    def warning(self) -> str:
        """What is likely wrong with the pairs to train on; empty if nothing is."""
        found = (why_enlarged(x.plan.sparse, x.plan.sampling) for x in self.sections)
        first = next(filter(None, found), "")
        if first or self.why_no_settings:
            return first
        return say_start(self.draft())

    @property
    def why_no_settings(self) -> str:
        """Reason why the advanced settings cannot be shown; empty if they can.

        They depend on the pairs, and there is no recipe for too few.
        """
        if self.training_pairs >= LEAST_PAIRS:
            return ""
        return self.why_no_pairs or (
            "Preview the pairs first: the settings depend on them."
        )

    @property
    def changed_settings(self) -> int:
        """Number of the preset's settings that were changed by hand."""
        if not self.typed or self.why_no_settings:
            return 0
        return len(self.draft().changed)

    @property
    def why_no_keep(self) -> str:
        """Reason why there are no pairs to keep; empty if there are."""
        none = self.planned is None
        return "Preview this section's pairs first." if none else ""

    @property
    def aligned(self) -> int | None:
        """Index of the partner that is aligned: the first that has pixels."""
        return first_with_pixels(self.partners)

    @property
    def aligned_partner(self) -> Partner | None:
        """The partner that is aligned."""
        return None if self.aligned is None else self.partners[self.aligned]

    @property
    def approved_by(self) -> str:
        """Who approved how the partners lie now; "" for nobody."""
        return self.said.approver_of(self.partners)

    @property
    def has_new_pairs(self) -> bool:
        """Whether pairs wait that no run was started with from here."""
        return bool(self.sections) and self.sections != self.trained

    @property
    def works(self) -> bool:
        """Whether a process trains."""
        return self.run is not None and self.run.view().works

    @property
    def sections(self) -> tuple[Planned, ...]:
        """The sections to learn from: those kept, and the one at hand."""
        return self.kept if self.planned is None else (*self.kept, self.planned)

    @property
    def section_names(self) -> tuple[str, ...]:
        """Names of :attr:`sections` in a set of pairs."""
        return section_names([x.plan for x in self.sections])

    @property
    def learned_classes(self) -> TileLabels | None:
        """The classes that a training learns, if it is to and there are some."""
        return classes_on_offer(self.sections) if self.learns_classes else None

    @property
    def why_only_alone(self) -> str:
        """Why a training sees no partner in any case; empty if one is left."""
        learned = self.learned_classes
        if learned is None or len(inputs_of(self.sections[0])) > 1:
            return ""
        return "Its classes are labels here, and there is no other partner."

    @property
    def held_out(self) -> int | None:
        """Index of the section that is held out whole, if others are left."""
        digests = [section_of(x) for x in self.sections]
        if len(digests) < 2 or self.held_out_section not in digests:
            return None
        return digests.index(self.held_out_section)

    @property
    def held_out_name(self) -> str:
        """Name of the section that is held out; "" for regions of all."""
        return "" if self.held_out is None else self.section_names[self.held_out]

    @property
    def training_pairs(self) -> int:
        """Pairs that are trained on; those in other regions, or a section, are not."""
        pairs = count_pairs(self.sections)
        if self.held_out is None:
            return training_share(pairs)
        return pairs - len(self.sections[self.held_out].plan)

    def say_layers(self) -> str:
        """Return what step 1 decided."""
        if self.sparse is None or not self.partners:
            return ""
        return say_learning([self.sparse.name], self.partners)

    def say_meaning(self) -> str:
        """Return what the choice of partners means; explains *student* once."""
        kinds = dict.fromkeys(p.kind for p in self.partners)
        meanings = [MEANINGS[kind] for kind in kinds]
        return " ".join([STUDENT_WORDS, *meanings]) if meanings else ""

    def say_alignment(self, partner: int = 0) -> str:
        """Return what step 2 decided for a partner."""
        if partner >= len(self.partners):
            return ""
        return say_alignment(self.partners[partner])

    def say_pairs(self) -> str:
        """Return what step 3 decided."""
        return say_pairs(
            self.planned, self.kept, self.training_pairs, self.held_out_name
        )

    # --- work for jobs ---------------------------------------------------------------

    def plan_work(self) -> Work:
        """Return the work that lays out pairs and reads a few to look at."""
        assert self.sparse is not None
        return plan_work(self.sparse, self.partners, self.sampling, self.kept)

    def write_work(self, folder: Path, name: str) -> Work:
        """Return the work that writes the pairs and prepares the run's folder."""
        plans = [section.plan for section in self.kept]
        if self.planned is not None:
            plans.append(self.said.put_into(self.planned).plan)
        return write_work(plans, self.recipe(name), folder)

    def recipe(self, name: str) -> DistillConfig:
        """Return the recipe for the pairs that are laid out.

        Raises
        ------
        InputError
            If a setting that was changed by hand cannot be used.
        """
        return self.draft(name).config()

    def draft(self, name: str = "student") -> Draft:
        """Return the chosen preset's recipe and what was changed by hand."""
        wish = TrainingWish(
            self.title,
            self.training_pairs,
            self.held_out_name,
            self.with_partner,
            self.learned_classes,
        )
        base = preset_recipe(self.preset, self.sections, name, wish)
        return Draft(base, self.typed, self.training_pairs)

    # --- the run ---------------------------------------------------------------------

    @property
    def student(self) -> Path | None:
        """The bundle of the run, once there is one."""
        if self.run is None or not (self.run.folder / STUDENT / "spec.json").is_file():
            return None
        return self.run.folder / STUDENT

    @property
    def ready_student(self) -> Path | None:
        """The bundle of the run, once nothing trains it any more."""
        return None if self.works else self.student

    @property
    def report(self) -> Path | None:
        """The page on the run, once there is one."""
        page = None if self.run is None else self.run.folder / REPORT
        return page if page is not None and page.is_file() else None

    @property
    def best_student(self) -> Path | None:
        """The student with classes, if some were fitted to this one; or else it."""
        return None if self.student is None else with_classes(self.student)
