"""``info`` and ``students``: facts about a slide, and the students that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_histodistill.addresses import shown
from napari_histodistill.cli.console import answering
from napari_histodistill.cli.options import (
    ImageOption,
    JsonOption,
    MppOption,
    RgbOption,
    SlideArgument,
)

if TYPE_CHECKING:
    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides import ImageChoice

MOST_LISTED = 40
"""Images that the text lists; ``--json`` has all."""


def info(
    slide: SlideArgument,
    mpp: MppOption = None,
    image: ImageOption = None,
    rgb: RgbOption = False,
    json: JsonOption = False,
) -> None:
    """Show a slide's size, levels and µm per pixel, and the images in its file."""
    from napari_histodistill.slides import open_slide

    with (
        answering(as_json=json) as answer,
        open_slide(slide, mpp=mpp, image=image, rgb=rgb) as opened,
    ):
        facts = opened.info
        height, width = opened.shape
        scale = opened.usable_mpp
        size = scale and (height * scale.y / 1e3, width * scale.x / 1e3)
        levels = [
            {
                "height": level.height,
                "width": level.width,
                "downsample": round(downsample, 6),
                "tile": [level.tile_height, level.tile_width],
            }
            for level, downsample in zip(
                opened.level_infos, opened.downsamples, strict=True
            )
        ]
        result: dict[str, Any] = {
            "slide": shown(slide),
            "name": facts.name,
            "backend": facts.backend,
            "vendor": facts.vendor,
            "height": height,
            "width": width,
            "dtype": str(opened.dtype),
            "channels": list(facts.channels),
            "levels": levels,
            "mpp": _mpp_facts(opened.mpp),
            "size_mm": size and [round(s, 4) for s in size],
            "origin_um": list(facts.origin_um),
            "images": [_image_facts(choice) for choice in facts.images],
            "image": facts.image,
            "asks_rgb": facts.needs_rgb,
            "associated_images": list(opened.associated_images),
            "digest": facts.digest,
            "notes": list(facts.notes),
        }
        answer.give(result, _slide_text(result))


def _mpp_facts(mpp: Mpp | None) -> dict[str, Any] | None:
    if mpp is None:
        return None
    return {
        "y": mpp.y,
        "x": mpp.x,
        "source": mpp.source,
        "plausible": mpp.is_plausible,
    }


def _image_facts(choice: ImageChoice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "name": choice.name,
        "role": choice.role,
        "height": choice.height,
        "width": choice.width,
        "mpp": _mpp_facts(choice.mpp),
    }


def students(json: JsonOption = False) -> None:
    """List the students, their classes and licences."""
    from napari_histodistill.students import list_students

    with answering(as_json=json) as answer:
        entries = [
            {
                "name": entry.name,
                "title": entry.spec.title,
                "classes": list(entry.spec.class_names),
                "mpp": entry.spec.mpp,
                "mpp_source": entry.spec.mpp_source,
                "tile_px": entry.spec.tile_px,
                "backbone": entry.spec.backbone,
                "embedding_dim": entry.spec.embedding_dim,
                "licence": entry.spec.licence,
                "digest": entry.digest,
                "folder": str(entry.folder),
            }
            for entry in list_students()
        ]
        text = "\n".join(_student_text(entry) for entry in entries)
        answer.give({"students": entries}, text)


def _slide_text(facts: dict[str, Any]) -> str:
    mpp = facts["mpp"]
    if mpp is None:
        scale = "unknown: give it with --mpp"
    else:
        scale = f"{mpp['y']:.4g} × {mpp['x']:.4g} µm, from {mpp['source']}"
        scale += "" if mpp["plausible"] else " (not plausible: give it with --mpp)"
    lines = [
        f"{facts['name']}  ({facts['vendor'] or facts['backend']})",
        f"  size        {facts['height']} × {facts['width']} px (height × width)",
        f"  pixel       {scale}",
        f"  channels    {', '.join(facts['channels'])} ({facts['dtype']})",
        f"  associated  {', '.join(facts['associated_images']) or 'none'}",
    ]
    if facts["asks_rgb"]:
        lines.append("  question    are the three channels red, green, blue? say --rgb")
    if any(facts["origin_um"]):
        y, x = facts["origin_um"]
        lines.append(f"  placed at   {y:g}, {x:g} µm (y, x) by the file")
    if facts["size_mm"]:
        lines.insert(2, "              {:.2f} × {:.2f} mm".format(*facts["size_mm"]))
    for k, level in enumerate(facts["levels"]):
        lines.append(
            f"  level {k}     {level['height']} × {level['width']} px, "
            f"downsample {level['downsample']:.4g}"
        )
    if len(facts["images"]) > 1:
        lines += _image_lines(facts["images"], facts["image"])
    lines += [f"  note        {note}" for note in facts["notes"]]
    return "\n".join(lines)


def _image_lines(images: list[dict[str, Any]], opened: int) -> list[str]:
    lines = []
    for entry in images[:MOST_LISTED]:
        mpp = entry["mpp"]
        size = f"{entry['height']} × {entry['width']} px" if entry["height"] else ""
        words = [
            size,
            "" if mpp is None else f"{mpp['y']:.4g} × {mpp['x']:.4g} µm",
            entry["role"],
            "shown here" if entry["index"] == opened else "",
        ]
        said = ", ".join(word for word in words if word)
        lines.append(f"  image {entry['index']:<5} {entry['name']}: {said}")
    if len(images) > MOST_LISTED:
        lines.append(f"              and {len(images) - MOST_LISTED} more (--json)")
    lines.append("              another one is chosen with --image NAME|N")
    return lines


def _student_text(entry: dict[str, Any]) -> str:
    classes = ", ".join(entry["classes"]) or "none (similarity only)"
    estimated = " (estimated)" if entry["mpp_source"] == "estimated" else ""
    return (
        f"{entry['name']}  {entry['title']}\n"
        f"  classes  {classes}\n"
        f"  sees     {entry['tile_px']} px at {entry['mpp']:g} µm/px{estimated}\n"
        f"  licence  {entry['licence']}\n"
        f"  digest   {entry['digest'][:16]}"
    )
