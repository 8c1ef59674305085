"""A stage becomes objects, and what does not fit is found before anything trains."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.stages import DIGITS, model, recipe, stage
from trainers import backbones, build, data, detectors, distill
from trainers.call import Call, Invalid, Term
from trainers.data.batches import Batches
from trainers.spec import Model, Weights


def gfl(width: int = 8, **knobs: Any) -> Model:
    small = {"channels": 8, "convs": 1, "extra": 0, "reg_max": 4, **knobs}
    return Model(
        detector=Call(name="GFL", args=small).complete(detectors),
        backbone=Call(name="TinyResNet", args={"width": width}).complete(backbones),
    )


def calls(*written: Any) -> tuple[Term, ...]:
    return tuple(Term.model_validate(one).complete(distill) for one in written)


def test_a_data_set_is_opened_once_however_its_arguments_are_ordered() -> None:
    shuffled = Call(name="Digits", args=dict(reversed(DIGITS.args.items())))
    assert build.dataset(DIGITS).train is build.dataset(shuffled).train
    assert build.dataset(DIGITS) is not build.dataset(Call(name="Digits", args={**DIGITS.args, "seed": 1}))


def test_contents_identify_the_data_and_not_its_call() -> None:
    contents = build.contents(DIGITS)
    assert contents.classes == ("zero", "one") and contents.fingerprint == build.dataset(DIGITS).fingerprint
    assert build.contents(Call(name="Digits", args={**DIGITS.args, "seed": 1})) != contents


def judged(metric: Any) -> Call:
    return Call(name="Digits", args={**DIGITS.args, "metric": metric}).complete(data)


def test_how_data_is_judged_identifies_it_too_but_not_by_which_figure_it_is_ranked() -> None:
    written = ("CocoAP", "VocAP", {"VocAP": {"points": "area"}}, "MissRate", {"MissRate": {"family": "citypersons"}})
    prints = {build.contents(judged(metric)).fingerprint for metric in written}
    assert len(prints) == 5 and all(re.fullmatch("[0-9a-f]{64}", one) for one in prints)
    own = build.dataset(DIGITS).fingerprint
    assert build.contents(judged({"CocoAP": {"score": "AP50"}})).fingerprint == own
    assert build.contents(judged({"VocAP": {"score": "AP50"}})) == build.contents(judged("VocAP"))
    assert build.contents(judged({"VocAP": {"points": "11"}})) == build.contents(judged("VocAP"))
    short = Call(name="Digits", args={"classes": 2, "train": 32, "val": 16, "size": 32, "metric": "VocAP"})
    assert build.contents(short) == build.contents(judged("VocAP"))


def test_a_score_that_cannot_be_measured_is_refused_with_what_can() -> None:
    assert build.score_name(build.dataset(judged("VocAP"))) == "AP"
    with pytest.raises(Invalid, match="nothing that APl could be measured on; there is AP, APs, AP50, AP75") as refused:
        build.score_name(build.dataset(judged({"CocoAP": {"score": "APl"}})))
    assert refused.value.where == ("metric", "CocoAP")
    with pytest.raises(Invalid, match="-MR_far is not one of") as refused:
        build.metric(build.dataset(judged({"MissRate": {"family": "citypersons", "score": "-MR_far"}})))
    assert refused.value.where == ("metric", "MissRate", "score")


def test_a_detector_has_the_classes_of_its_data_and_weights_of_the_seed() -> None:
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(build.detector(stage()))
    assert built[0].num_classes == 2
    first, same, other = (torch.cat([p.flatten() for p in one.parameters()]) for one in built)
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("freeze", [0, 1, 2, 3])
def test_a_recipe_freezes_the_first_stages(freeze: int) -> None:
    backbone: Any = build.detector(stage(freeze=freeze)).backbone
    learning = [any(p.requires_grad for p in part.parameters()) for part in (backbone.stem, *backbone.stages)]
    assert learning == [freeze == 0, *(index >= freeze for index in range(3))]


def test_a_recipe_fixes_the_norms_even_in_training() -> None:
    fixed, free = build.detector(stage(fixed_norm=True)).train(), build.detector(stage()).train()
    assert fixed.training and free.training

    def modes(detector: nn.Module) -> set[bool]:
        return {module.training for module in detector.modules() if isinstance(module, nn.BatchNorm2d)}

    assert modes(fixed) == {False} and modes(free) == {True}


def test_losses_are_called_after_their_classes_and_counted_when_there_are_several() -> None:
    student, teacher = build.network(gfl(), 2), build.network(gfl(16), 2)
    assert list(build.losses(calls("LD", "KD"), student, [teacher]).modules) == ["ld", "kd"]
    built = build.losses(calls({"LD": {"weight": 1}}, "KD", {"LD": {"weight": 2}}), student, [teacher]).modules
    assert list(built) == ["ld_1", "kd", "ld_2"]
    assert [getattr(built[name], "weight", None) for name in ("ld_1", "ld_2")] == [1, 2]


@pytest.mark.parametrize(
    ("call", "there"),
    [
        ({"LD": {"weight": 0}}, True),  # the valuable region is left
        ({"LD": {"weight": 0, "vlr_weight": 0}}, False),
        ({"FGD": {"weight": 0}}, False),  # which multiplies what its parts' weights are if nobody says it
        ({"FGD": {"foreground_weight": 0}}, True),
        ({"CrossKD": {"cls_weight": 0}}, True),
    ],
    ids=str,
)
def test_a_loss_whose_weights_are_all_zero_is_left_out(call: dict[str, Any], there: bool) -> None:
    student, teacher = build.network(gfl(), 2), build.network(gfl(16), 2)
    assert bool(build.losses(calls(call), student, [teacher]).modules) == there


def test_the_size_of_a_model_is_counted_without_numbers_and_is_that_of_the_real_one() -> None:
    size = build.size(build.shape(gfl(), 2), (32, 32))
    assert size.parameters == sum(p.numel() for p in build.network(gfl(), 2).parameters())
    assert build.size(build.shape(gfl(), 2), (64, 64)).flops == 4 * size.flops > 0
    assert build.size(build.shape(gfl(), 2), (17, 32)).flops == size.flops, "padded to the largest stride"
    assert build.size(build.shape(gfl(16), 2), (32, 32)).flops > size.flops


def test_a_model_is_counted_once_for_each_image_and_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(classes, image) for classes in (2, 3) for image in ((32, 32), (64, 32), (32, 32))]
    counted, count = [], build.size
    monkeypatch.setattr(build, "_sizes", {})
    monkeypatch.setattr(build, "size", lambda built, image: counted.append(image) or count(built, image))
    found = [build.size_of(gfl(), classes, image) for classes, image in asked]
    assert counted == [(32, 32), (64, 32)] * 2
    assert found == [count(build.shape(gfl(), classes), image) for classes, image in asked]
    assert build.size_of(gfl(16), 2, (32, 32)) != found[0], "another model"


def test_the_work_of_one_convolution_is_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    class One(nn.Module):
        backbone = SimpleNamespace(strides=(4,))

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 4, 4, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.conv(images)
            return out

    monkeypatch.setattr(build, "network", lambda model, num_classes: One())
    # 8 * 4 places, 5 channels, each 3 * 4 * 4 products and as many sums
    assert build.size(build.shape(gfl(), 2), (32, 16)) == (240, 8 * 4 * 5 * 48 * 2)


@pytest.mark.parametrize(("extra", "image"), [(0, (17, 32)), (2, (17, 32)), (2, (32, 1))])
def test_images_are_padded_to_the_coarsest_map_and_not_to_the_coarsest_level(
    extra: int, image: tuple[int, int]
) -> None:
    built = build.shape(gfl(extra=extra), 2)
    assert build.divisor(built) == 16
    padded = tuple(-(-side // 16) * 16 for side in image)
    assert build.size(built, image).flops == build.size(built, padded).flops


def sized(detector: Any, backbone: Any) -> build.Size:
    model = Model(
        detector=Call.model_validate(detector).complete(detectors),
        backbone=Call.model_validate(backbone).complete(backbones),
    )
    return build.size(build.shape(model, 2), (64, 64))


def test_a_deformable_convolution_is_counted_as_a_plain_one_and_its_offsets_come_on_top() -> None:
    plain, v1, v2 = (sized({"GFL": {"channels": 8}}, {"ResNet": {"depth": 18, "dcn": n}}) for n in ("none", "v1", "v2"))
    assert v1.flops > plain.flops
    assert 18 * (v2.flops - plain.flops) == 27 * (v1.flops - plain.flops), "18 offsets; and 9 masks"


def test_the_second_stage_is_counted_for_as_many_regions_as_it_gets() -> None:
    thin, thick = (sized({"FasterRCNN": {"channels": 8, "hidden": n}}, "TinyResNet") for n in (16, 32))
    fc6, fc7, predictors = 8 * 49 * 16, 32 * 32 - 16 * 16, (3 + 12) * 16
    assert thick.flops - thin.flops == 2 * 1000 * (fc6 + fc7 + predictors)


def test_what_is_there_in_training_alone_is_not_counted() -> None:
    small = {"channels": 8, "hidden": 16, "convs": 1}
    size = sized({"MimicDet": small}, "TinyResNet")
    assert size == sized({"MimicDet": {**small, "convs": 4}}, "TinyResNet")


def test_a_separate_backbone_for_training_starts_as_the_other_does(tmp_path: Path) -> None:
    mimicdet = {"channels": 8, "hidden": 16, "convs": 1, "extra": 1, "separate": True}
    model = Model(
        detector=Call(name="MimicDet", args=mimicdet).complete(detectors),
        backbone=Call(name="ResNet", args={"depth": 18}).complete(backbones),
        weights=Weights(sha256="0" * 64, part="backbone"),
    )
    file = tmp_path / "backbone.pth"
    torch.save(backbones.ResNet(depth=18).state_dict(), file)
    one = stage(freeze=1)
    built = build.detector(one.model_copy(update={"model": model}), file)
    given = torch.load(file, weights_only=True)
    for name, parameter in built.t_backbone.named_parameters():
        assert torch.equal(parameter, given[name])
        assert parameter.requires_grad == (not name.startswith(("conv1.", "bn1.", "layer1.")))


def test_a_large_model_is_measured_without_its_memory() -> None:
    resnet = Model(detector=Call(name="GFL").complete(detectors), backbone=Call(name="ResNet").complete(backbones))
    size = build.size(build.shape(resnet, 80), (800, 1333))
    assert 30e6 < size.parameters < 35e6 and 300e9 < size.flops < 600e9
    assert all(p.is_meta for p in meta(resnet).parameters())


def meta(model: Model) -> Any:
    with torch.device("meta"):
        return build.network(model, 80)


def test_parts_that_do_not_fit_are_refused_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def misfit(model: Model, num_classes: int) -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1))

    monkeypatch.setattr(nn.Sequential, "backbone", SimpleNamespace(strides=(4,)), raising=False)
    with pytest.raises(Invalid, match=r"an image of \(32, 32\) does not pass through it: .*channel"):
        build.size(misfit(gfl(), 2), (32, 32))

    def refused(model: Model, num_classes: int) -> nn.Module:
        return nn.Conv2d(3, 4, 1, groups=2)

    monkeypatch.setattr(build, "network", refused)
    with pytest.raises(Invalid, match=r"GFL\(.*\) on TinyResNet\(.*\) cannot be built: .*groups"):
        build.shape(gfl(), 2)


def test_freezing_more_than_there_is_is_refused() -> None:
    build.check_recipe(build.shape(model(), 2), recipe(freeze=3))
    with pytest.raises(Invalid, match="cannot freeze 4 stages: the backbone has 3") as caught:
        build.check_recipe(build.shape(model(), 2), recipe(freeze=4))
    assert caught.value.where == ("freeze",)


def test_a_pair_that_fits_passes_whatever_the_widths() -> None:
    build.check_pair(calls("LD", "KD"), build.shape(gfl(8), 2), build.shape(gfl(24, channels=16), 2))
    build.check_pair((), build.shape(gfl(8), 2), build.shape(gfl(8, reg_max=8), 2))


@pytest.mark.parametrize(
    ("loss", "classes", "teacher", "message"),
    [
        ("LD", 2, gfl(reg_max=8), "number of bins, but the student's is 5 and the teacher's is 9"),
        ("LD", 2, gfl(extra=1), "strides"),
        ("KD", 2, gfl(extra=1), "strides"),
        ("KD", 1, gfl(), "one class"),
    ],
)
def test_a_pair_that_a_loss_cannot_take_is_refused(loss: str, classes: int, teacher: Model, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        build.check_pair(calls(loss), build.shape(gfl(), classes), build.shape(teacher, classes))


def test_checking_a_pair_draws_no_random_numbers_and_keeps_no_memory() -> None:
    before = torch.get_rng_state()
    build.check_pair(calls("LD"), build.shape(gfl(), 2), build.shape(gfl(16), 2))
    build.size(build.shape(gfl(), 2), (32, 32))
    build.check_recipe(build.shape(gfl(), 2), recipe())
    assert torch.equal(before, torch.get_rng_state())


def test_a_typical_image_is_the_first_or_as_the_recipe_resizes() -> None:
    assert build.image_size(build.dataset(DIGITS), recipe()) == (32, 32)
    assert build.image_size(build.dataset(DIGITS), recipe(resize=(48, 64))) == (48, 64)


def test_an_epoch_has_as_many_steps_as_batches() -> None:
    sizes = [(4, 6)] * 5 + [(6, 4)] * 4
    found = SimpleNamespace(train=SimpleNamespace(sizes=sizes))
    assert (build.steps(found, 4, group=False), build.steps(found, 4, group=True)) == (3, 3)
    assert (build.steps(found, 3, group=False), build.steps(found, 3, group=True)) == (3, 4)
    for batch in (3, 4, 100):
        split = build.dataset(DIGITS).train
        assert build.steps(build.dataset(DIGITS), batch, group=False) == Batches(split, batch=batch, seed=0).steps
