"""What a partner teaches: a painted pair whose secret only the partner shows.

The whole way, as the window goes it: layers, pairs, two trainings that differ in
nothing but the partner, two students, one probe. The secret: ``samples/paired.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.store import read_pairs, write_pairs
from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.presets import PartnerInput, recipe_for
from napari_histodistill.distill.runs.folder import STUDENT, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps import EmbeddingStore, embed_slide, plan_grid
from napari_histodistill.maps.difference import difference_map, side_of
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask
from napari_histodistill.students import load_student

PX = 48
MARGIN = 0.1


def test_equal_seeds_paint_equal_pairs():
    first, again, other = paint_pair(256), paint_pair(256), paint_pair(256, seed=1)
    np.testing.assert_array_equal(first.sparse, again.sparse)
    np.testing.assert_array_equal(first.dense, again.dense)
    assert (first.sparse != other.sparse).any()
    # The marker shines inside its zones and nowhere else.
    inside = first.dense[..., 1][first.positive].mean()
    assert inside > 2 * first.dense[..., 1][~first.positive].mean()
    # The colour of the sparse layer gives nothing away.
    means = first.sparse.mean(2)
    apart = abs(means[first.positive].mean() - means[~first.positive].mean())
    assert apart < 0.5 * means.std()


def small(config: DistillConfig) -> DistillConfig:
    """Return a preset's recipe with narrower networks and smaller batches."""
    plain = config.model_dump(mode="json")
    for branch in (plain["sparse"], *plain["dense"]):
        branch["encoder"]["options"]["channels"] = [16, 32, 64, 128]
    plain["schedule"] |= {"batch": 64, "checkpoint_every": 150, "keep": "last"}
    return DistillConfig.model_validate(plain)


@pytest.mark.slow(100)
def test_the_partner_makes_the_student_see_it(tmp_path):
    painted, mpp = paint_pair(1152), Mpp(0.5, 0.5, "painted")
    sparse = slide_from_arrays(painted.sparse, name="H&E", mpp=mpp)
    dense = slide_from_arrays(painted.dense, name="marker", mpp=mpp, channels=CHANNELS)
    plan = plan_pairs(
        sparse,
        [dense_layer(dense, name="marker", tile_px=PX)],
        Sampling(mpp=0.5, tile_px=PX),
        tissue=TissueMask(np.ones((4, 4), bool), sparse.shape),
    )
    list(write_pairs(tmp_path / "pairs.zarr", plan))
    stored = read_pairs(tmp_path / "pairs.zarr")
    corners = np.rint(stored.position_um / 0.5 + 0.5 - PX / 2).astype(int)
    share = np.array(
        [painted.positive[y : y + PX, x : x + PX].mean() for y, x in corners]
    )
    clear, positive = abs(share - 0.5) > 0.4, share > 0.5
    found, students = {}, []
    for partners in ([], [PartnerInput("marker", "channels", PX)]):
        config = small(
            recipe_for(
                "quick",
                name="painted",
                source="painted",
                mpp=0.5,
                tile_px=PX,
                student_px=PX,
                pairs=len(plan) * 4 // 5,
                partners=partners,
            )
        )
        folder = tmp_path / config.arm
        start_run(config, folder, tmp_path / "pairs.zarr")
        list(train(folder, device="cpu", threads=1))
        held_out = load_pairs(config, tmp_path / "pairs.zarr").validation
        assert held_out is not None
        held = np.isin(stored.regions, held_out.cases)
        student = load_student(
            folder / STUDENT, device="cpu", threads=1, precision="float32"
        )
        embeddings = student.embed(stored.sparse())
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
        )
        probe.fit(embeddings[clear & ~held], positive[clear & ~held])
        told = probe.decision_function(embeddings[clear & held])
        found[config.arm] = roc_auc_score(positive[clear & held], told)
        students.append(student)
    assert found["triplet"] > found["unprivileged"] + MARGIN, found
    assert found["triplet"] > 0.85, found
    # And without a label, on tissue that neither has seen: that is what the student
    # with the partner sees and the other does not, and hardly anything the other way.
    assert what_is_new(*students, tmp_path) > 0.9
    assert what_is_new(*reversed(students), tmp_path) < 0.7


def what_is_new(one, other, folder) -> float:
    """Return how well the news from one student to another tells the marker's zones."""
    painted = paint_pair(640, seed=6)
    slide = slide_from_arrays(painted.sparse, name="new", mpp=Mpp(0.5, 0.5, "painted"))
    sides = []
    for student in (one, other):
        path = folder / f"{student.spec.training.arm}.zarr"
        grid = plan_grid(slide, student, stride_um=12)
        list(embed_slide(slide, student, path, grid=grid, tissue=None))
        sides.append(side_of(EmbeddingStore.open(path), student))
    news = difference_map(*sides, measure="news")
    share = uniform_filter(painted.positive.astype(float), PX)
    rows, columns = (np.clip(c.astype(int), 0, 639) for c in news.grid.centers())
    share = share[np.ix_(rows, columns)]
    clear = abs(share - 0.5) > 0.4
    told = roc_auc_score((share > 0.5)[clear], news.signed()[clear])
    return max(told, 1 - told)  # which end is which does not matter
