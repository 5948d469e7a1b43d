#!/bin/sh
# The whole story without a window: painted sections and their partners, as files, are
# aligned, paired and distilled; the student gets classes and maps a slide.
# usage: story.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python "$here/paint.py" "$1"
cd "$1"
histodistill align he-a.ome.tif marker-a.ome.tif -o a.json --approved-by "A. Reader" --json > align.out
histodistill pairs sections.csv -o pairs.zarr --tile-px 64 --report sections.html --json > pairs.out
histodistill distill pairs.toml -o run --device cpu --threads 1 --json > distill.out
histodistill distill classes.toml -o student --device cpu:torch --json > classes.out
histodistill classify he-b.ome.tif --student student -o map --device cpu:torch --json > classify.out
