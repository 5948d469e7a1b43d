"""The model card: a description of a student, made from its spec alone.

The spec's texts may come from anywhere, and a card is shown by websites: each of them
is one paragraph or one cell of a table, whatever it looks like.
"""

from __future__ import annotations

import re
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


def in_markdown(text: str) -> str:
    r"""Return a text as one line of Markdown that loads, links and breaks nothing.

    No HTML, link, picture or cell of a table begins in it.

    Examples
    --------
    >>> print(in_markdown("<img src=x> | ![](http://host/a.png)"))
    \<img src=x> \| !\[](http://host/a.png)
    """
    return re.sub(r"([\\<|\[])", r"\\\1", " ".join(text.split()))


def write_card(spec: StudentSpec) -> str:
    """Return the card as Markdown."""
    about = in_markdown(spec.description)
    parts = [f"# {in_markdown(spec.title)}", about, "## Facts", _facts(spec)]
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
        parts += ["## What its probabilities meant"]
        parts += [in_markdown(in_words(spec.calibration))]
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
    protocol = in_markdown(trust.protocol)
    return (
        f"{protocol[:1].upper()}{protocol[1:]}, by features of the frozen "
        "ImageNet start. A slide is *unlike* if even the nearest third of its squares "
        "lies out, *like* if two thirds lie within what the cases show, *too little* "
        "otherwise; brown, dark, inked and soft slides are named by rules of their "
        "own. What this misses: `training/RESULTS.md` of napari-histodistill."
    )


def _facts(spec: StudentSpec) -> str:
    weights = "in this bundle"
    if spec.weights.source == "package":
        licence = in_markdown(spec.weights.licence) or "licence not stated"
        package = re.sub(r"[^\w.-]", "?", spec.weights.package)
        weights = f"in the Python package `{package}`; {licence}"
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
        ("licence", in_markdown(spec.licence)),
        ("digest", f"`{spec.digest}`"),
    ]
    body = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return f"| | |\n|---|---|\n{body}"


def _training(spec: StudentSpec) -> str:
    training = spec.training
    if training is None:
        return ""
    data = in_markdown(training.data)
    lines = [f"{data} {training.tiles} tiles of {training.cases} cases."]
    lines += [f"Attribution: {in_markdown(training.attribution)}"]
    lines += [f"Licence: {in_markdown(training.licence)}"]
    partners = in_markdown("; ".join(training.partners or ()))
    taught = f", partners: {partners}" if partners else ""
    lines += [f"Arm: {in_markdown(training.arm)}{taught}."]
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
        f"({in_markdown(stain.protocol)}). Glass is {glass}.\n\n"
        "| stain | direction in optical density (R, G, B) | full strength |\n"
        f"|---|---|---|\n{rows}"
    )


def _metric(metric: Metric) -> str:
    interval = ""
    if metric.low is not None and metric.high is not None:
        interval = f" ({metric.low:.3f} to {metric.high:.3f})"
    name, how = in_markdown(metric.name), in_markdown(metric.protocol)
    return f"- {name}: **{metric.value:.3f}**{interval}: {how}"


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
        f"{in_markdown(agreement.measured_on)}."
    )
