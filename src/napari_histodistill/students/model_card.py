"""The model card: a description of a student, made from its spec alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.students.spec import (
        CalibrationSpec,
        Metric,
        StudentSpec,
        TrustSpec,
    )

_LIMITS = """\
Research use only: not a medical device, not for diagnosis. Tissue, stains, scanners
or magnifications unlike the training data still give numbers, and {warning}.
Confidence is calibrated on the training data's cases, not on yours."""
_NO_WARNING = "nothing in the\nstudent warns of it"
_WARNING = (
    "the verdict\non a slide (like, unlike, too little) warns of what lies far out "
    "only: like does\nnot mean right"
)


def write_card(spec: StudentSpec) -> str:
    """Return the card as Markdown."""
    parts = [f"# {spec.title}", spec.description, "## Facts", _facts(spec)]
    if spec.classes:
        rows = "\n".join(f"| {c.name} | `{c.color}` |" for c in spec.classes)
        parts += ["## Classes", f"| class | colour |\n|---|---|\n{rows}"]
    if spec.training:
        parts += ["## Training data", _training(spec)]
    if spec.metrics:
        parts += ["## Measured", "\n".join(_metric(m) for m in spec.metrics)]
    if spec.token_agreement:
        parts += ["## Tokens against tiles", _agreement(spec)]
    if spec.calibration:
        parts += ["## What its probabilities meant", in_words(spec.calibration)]
    if spec.trust:
        parts += ["## What slides are compared with", _trust(spec.trust)]
    if spec.stain:
        parts += ["## Stain of the training tiles", _stain(spec)]
    parts += ["## Limits", _limits(spec)]
    return "\n\n".join(p for p in parts if p) + "\n"


def _limits(spec: StudentSpec) -> str:
    return _LIMITS.format(warning=_WARNING if spec.trust else _NO_WARNING)


def in_words(calibration: CalibrationSpec) -> str:
    """Return what a head's probabilities meant on held-out cases, in a sentence."""
    sure = "no tile was 90 % sure"
    if calibration.sure_right is not None:
        sure = (
            f"of the {calibration.sure_share:.0%} of tiles that were at least 90 % "
            f"sure, {calibration.sure_right:.0%} were right"
        )
    return (
        f"On cases it had not learned from ({calibration.protocol}): {sure}; expected "
        f"calibration error {calibration.error:.3f}."
    )


def _trust(trust: TrustSpec) -> str:
    return (
        f"{trust.protocol[:1].upper()}{trust.protocol[1:]}, by features of the frozen "
        "ImageNet start. A slide is *unlike* if even the nearest third of its squares "
        "lies out, *like* if two thirds lie within what the cases show, *too little* "
        "otherwise; brown, dark, inked and soft slides are named by rules of their "
        "own. What this misses: `training/RESULTS.md` of napari-histodistill."
    )


def _facts(spec: StudentSpec) -> str:
    weights = "in this bundle"
    if spec.weights.source == "package":
        licence = spec.weights.licence or "licence not stated"
        weights = f"in the Python package `{spec.weights.package}`; {licence}"
    origin = "estimated" if spec.mpp_source == "estimated" else "stated"
    rows = [
        ("name", f"`{spec.name}`"),
        ("backbone", f"`{spec.backbone}` (timm), {spec.embedding_dim} numbers a tile"),
        ("weights", weights),
        (
            "tile",
            f"{spec.tile_px} px at {spec.mpp:g} µm/px ({origin}): {spec.tile_um:g} µm"
            + (f", enlarged to {spec.input_px} px" if spec.input_px else ""),
        ),
        ("licence", spec.licence),
        ("digest", f"`{spec.digest}`"),
    ]
    body = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return f"| | |\n|---|---|\n{body}"


def _training(spec: StudentSpec) -> str:
    training = spec.training
    if training is None:
        return ""
    lines = [f"{training.data} {training.tiles} tiles of {training.cases} cases."]
    lines += [f"Attribution: {training.attribution}", f"Licence: {training.licence}"]
    partners = "; ".join(training.partners or ())
    lines += [f"Arm: {training.arm}{f', partners: {partners}' if partners else ''}."]
    return "\n\n".join(lines)


def _stain(spec: StudentSpec) -> str:
    stain = spec.stain
    if stain is None:
        return ""
    rows = "\n".join(
        f"| {name} | {', '.join(f'{v:.2f}' for v in direction)} | {strength:.2f} |"
        for name, direction, strength in zip(
            ("haematoxylin", "eosin"),
            (stain.haematoxylin, stain.eosin),
            stain.strengths,
            strict=True,
        )
    )
    glass = ", ".join(f"{v:.0f}" for v in stain.glass)
    return (
        "The look that stain normalisation gives to slides "
        f"({stain.protocol}). Glass is {glass}.\n\n"
        "| stain | direction in optical density (R, G, B) | full strength |\n"
        f"|---|---|---|\n{rows}"
    )


def _metric(metric: Metric) -> str:
    interval = ""
    if metric.low is not None and metric.high is not None:
        interval = f" ({metric.low:.3f} to {metric.high:.3f})"
    return f"- {metric.name}: **{metric.value:.3f}**{interval}: {metric.protocol}"


def _agreement(spec: StudentSpec) -> str:
    agreement = spec.token_agreement
    if agreement is None:
        return ""
    return (
        "Tokens averaged over a tile are not the tile's embedding; the two never mix.\n"
        f"Cosine {agreement.cosine_median:.2f} (5th percentile "
        f"{agreement.cosine_p05:.2f}); rank correlation of similarity maps "
        f"{agreement.rank_correlation_median:.2f} (worst "
        f"{agreement.rank_correlation_worst:.2f}); {agreement.cells} cells of "
        f"{agreement.measured_on}."
    )
