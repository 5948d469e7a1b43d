"""Branches: what they are made of, what stays as it is, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from napari_histodistill.distill.recipes.config import EncoderConfig
from napari_histodistill.distill.training import networks
from napari_histodistill.distill.training.networks import (
    DistillNet,
    ExpressionEncoder,
    Inputs,
    build_encoder,
    build_projector,
)
from napari_histodistill.errors import InputError
from napari_histodistill.students import load_student
from tests.distill.small_runs import TINY, small_config

HERE = Path()


def test_a_projector_has_norms_and_relus_between_its_layers():
    kinds = [type(layer).__name__ for layer in build_projector(8, (16, 4, 2))]
    assert kinds == [
        *("Linear", "BatchNorm1d", "ReLU"),
        *("Linear", "BatchNorm1d", "ReLU"),
        "Linear",
    ]


def test_nothing_is_shared_between_modalities():
    net = DistillNet(small_config("triplet"), [Inputs("image", 3)], HERE)
    places = [p.data_ptr() for p in net.parameters()]
    assert len(set(places)) == len(places)
    outputs = net([torch.rand(4, 3, 32, 32)] * 2, [torch.rand(4, 3, 32, 32)])
    assert [p.shape for p in outputs.projections] == [(4, 16)] * 3
    assert outputs.logits is None


def test_frozen_layers_stay_to_the_last_bit():
    config = EncoderConfig(backbone="test_resnet", frozen_layers=("conv1", "layer1"))
    encoder = build_encoder(config, 3, HERE)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, 0.1)
    encoder.train()
    encoder(torch.rand(4, 3, 32, 32)).square().sum().backward()
    optimiser.step()
    changed = {k for k, v in encoder.state_dict().items() if not v.equal(before[k])}
    assert changed
    assert not [k for k in changed if "conv1." in k.removeprefix("module.")[:6]]
    assert not [k for k in changed if k.startswith("module.layer1.")]


LITE0 = {"backbone": "tf_efficientnet_lite0", "start": "imagenet-lite0"}


@pytest.mark.parametrize(
    ("stages", "trained"),
    [
        (0, {"conv_head", "bn2"}),
        (1, {"blocks.5", "blocks.6", "conv_head", "bn2"}),
        (2, {"blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head", "bn2"}),
    ],
)
def test_the_last_stages_are_trained_and_no_statistics_move(stages, trained):
    config = EncoderConfig.model_validate(
        LITE0 | {"trained_stages": stages, "frozen_statistics": True}
    )
    encoder = build_encoder(config, 3, HERE).train()
    names = [n for n, p in encoder.module.named_parameters() if p.requires_grad]
    assert {".".join(n.split(".")[: 1 + n.startswith("blocks")]) for n in names} == (
        trained
    )
    before = {k: v.clone() for k, v in encoder.module.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad])
    tiles = torch.rand(2, 3, 32, 32)
    # Without moving statistics, a tile's embedding does not depend on the batch.
    torch.testing.assert_close(encoder(tiles)[:1], encoder(tiles[:1]))
    encoder(tiles).square().sum().backward()
    optimiser.step()
    after = encoder.module.state_dict()
    assert {k for k, v in after.items() if not v.equal(before[k])} == set(names)


def test_frozen_layers_and_stages_add_up():
    every = EncoderConfig.model_validate(
        LITE0 | {"trained_stages": 5, "frozen_layers": ["bn2"]}
    )
    encoder = build_encoder(every, 3, HERE)
    still = {n for n, p in encoder.module.named_parameters() if not p.requires_grad}
    assert still == {"bn2.weight", "bn2.bias"}
    assert encoder.module.blocks[6].training


def test_a_start_loads_the_students_weights_and_its_pixels():
    config = EncoderConfig(backbone="tf_efficientnet_lite0", start="imagenet-lite0")
    encoder = build_encoder(config, 3, HERE).eval()
    student = load_student("imagenet-lite0", device="cpu", precision="float32")
    state = student.backend.module.state_dict()
    for name, values in encoder.module.state_dict().items():
        assert torch.equal(values, state[name])
    assert encoder.mean == student.spec.mean
    assert encoder.std == student.spec.std


def test_expression_goes_through_an_mlp_with_noise_in_training_only():
    encoder = ExpressionEncoder(30)
    table = torch.rand(8, 30)
    encoder.eval()
    assert torch.equal(encoder(table), encoder(table))
    encoder.train()
    assert not torch.equal(encoder(table), encoder(table))
    # Drawn in this order, or a run that an earlier version stopped goes on otherwise.
    encoder.layers = torch.nn.Identity()
    torch.manual_seed(4)
    found = encoder(table)
    torch.manual_seed(4)
    share = float(torch.rand(())) * 0.2
    lost = torch.nn.functional.dropout(table, share)
    assert torch.equal(found, lost + torch.randn_like(table))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "hf_hub_thing"}, "not a model of the installed timm"),
        ({"options": {"layers": 3}}, "options do not fit"),
        ({"frozen_layers": ("layer9",)}, "no such part"),
        (LITE0 | {"trained_stages": 6}, "has 5 stages, not 6"),
        ({"start": "imagenet-lite0"}, "do not fit the backbone"),
        ({"start": "nobody"}, "there is no student"),
    ],
)
def test_what_cannot_be_built_is_said(changes, words):
    config = EncoderConfig.model_validate(TINY | changes)
    with pytest.raises(InputError, match=words):
        build_encoder(config, 3, HERE)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [(Inputs("expression", 30), "tables need 'mlp'")],
)
def test_a_partner_needs_its_own_kind_of_encoder(inputs, words):
    with pytest.raises(InputError, match=words):
        DistillNet(small_config("privileged"), [inputs], HERE)


def test_nothing_left_to_train_is_refused(tmp_path):
    module = build_encoder(EncoderConfig(backbone="test_resnet"), 3, HERE).module
    config = EncoderConfig(backbone="test_resnet", start="x", trained_stages=0)
    assert networks._before_stages(module, config)[-1] == "layer4"
    assert list(module.named_children())[-2][0] == "global_pool"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "_start_from", lambda *_: ((0.5,) * 3, (0.25,) * 3))
        with pytest.raises(InputError, match="nothing is left to train"):
            build_encoder(config, 3, HERE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained_stages": 1}, "trained_stages needs a start"),
        ({"frozen_statistics": True}, "frozen_statistics needs a start"),
        ({"frozen": True, "start": "x", "trained_stages": 1}, "trains no stage"),
    ],
)
def test_what_stays_must_start_somewhere(changes, said):
    with pytest.raises(ValidationError, match=said):
        EncoderConfig.model_validate(TINY | changes)


def test_a_student_of_tables_is_refused():
    sparse = {"tile_px": 16, "input_px": 32, "encoder": {"backbone": "mlp"}}
    with pytest.raises(InputError, match="the student sees images"):
        DistillNet(small_config("unprivileged", sparse=sparse), [], HERE)
