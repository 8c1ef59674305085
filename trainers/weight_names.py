"""Under which names, and in which layouts, weights are published elsewhere, as tables; and how they are called here.

The names are those of torchvision (https://pytorch.org/vision/stable/models.html), whose files of before version 0.13
have older ones, and of mmdetection 2 and 3 (https://github.com/open-mmlab/mmdetection).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from trainers.call import Invalid

State = dict[str, Tensor]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # what a name has, and what stands there instead

TAPATH, MMDETECTION = "tapath", "mmdetection"
CLASSIFICATION, DETECTION = "torchvision classification", "torchvision detection"

# By the beginning of any name; the first that matches decides.
FORMATS = (
    (DETECTION, ("backbone.body.",)),
    (MMDETECTION, ("bbox_head.", "rpn_head.", "roi_head.", "neck.lateral_convs.", "backbone.patch_embed.")),
    (TAPATH, ("backbone.", "neck.")),
    (CLASSIFICATION, ("conv1.", "layer1.", "features.")),
)

# Names, whole, of what a file may have although we do not, and of what we may have although a file has not.
COUNTS = r".*\.num_batches_tracked"
COMPUTED = r".*\.relative_position_index"  # by us, whatever a file has: it says where to look things up
IGNORED: dict[str, tuple[str, ...]] = {
    TAPATH: (COMPUTED,),
    CLASSIFICATION: (COUNTS, COMPUTED, r"(fc|classifier|head|norm|aux1|aux2)\..*"),
    DETECTION: (COUNTS, COMPUTED),
    MMDETECTION: (COUNTS, COMPUTED, r"ema_.*", r"bbox_head\.integral\.project", r".*(anchor|prior)_generators?\..*"),
}
FRESH: dict[str, tuple[str, ...]] = {
    TAPATH: (COMPUTED,),
    CLASSIFICATION: (COUNTS, COMPUTED, r"norm[0-3]\.(weight|bias)"),  # detectors' Swin has a norm for each of its maps
    DETECTION: (COUNTS, COMPUTED),
    MMDETECTION: (COUNTS, COMPUTED, r"(backbone\.)?norm0\.(weight|bias)"),  # RetinaNet does without that map
}

# Tensors with rows for classes: whether the background has some, before the others, and how many a class has. An
# anchor's classes lie together, where there are several anchors.
CLASS_ROWS = (
    (r"head\.(cls|cls_out|classification_head\.cls_logits)\.(weight|bias)", 0, 1),
    (r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", 1, 1),
    (r"[st]_head\.cls\.(weight|bias)", 1, 1),  # of MimicDet
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", 1, 4),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)", 1, 1),
)

EPS = 1e-5  # of our batch norms


def kind(state: Mapping[str, Tensor]) -> str:
    """Which published format it is, from the names alone. Raises `Invalid` when it is none."""
    for found, beginnings in FORMATS:
        if any(name.startswith(beginnings) for name in state):
            return found
    some = ", ".join(list(state)[:3])
    raise Invalid(f"these are not the weights of tapath, torchvision or mmdetection: they have names such as {some}")


def ours(state: State, kind: str) -> State:
    """The same weights under the names and in the layouts of our detectors. Names without a rule stay as they are."""
    if kind == DETECTION:
        state = without_eps(state)
        return {renamed(name, torchvision_rules(state)): value for name, value in state.items()}
    if kind == MMDETECTION:
        state = with_stacked_scales(state)
        rules = mmdetection_rules(state)
        return {(name := renamed(old, rules)): laid_out(name, value) for old, value in state.items()}
    return state


def renamed(name: str, rules: Iterable[Rule]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is the whole name."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


# --- torchvision -----------------------------------------------------------------------------------------------------

TORCHVISION: list[Rule] = [
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?(?=weight|bias)", r"neck.laterals.\1."),
    (r"^backbone\.fpn\.layer_blocks\.(\d+)\.(?:0\.)?(?=weight|bias)", r"neck.outputs.\1."),
    (r"^backbone\.fpn\.extra_blocks\.p6\.", "neck.extras.0."),
    (r"^backbone\.fpn\.extra_blocks\.p7\.", "neck.extras.1."),
    (r"^rpn\.head\.conv\.(?=weight|bias)", "rpn.head.conv.0.0."),
    (r"^roi_heads\.mask_head\.mask_fcn(\d+)\.", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0."),
]
# RetinaNet's towers were convolutions and ReLUs by turns, as FCOS's still are with a norm between the two.
OLD_TOWERS: Rule = (
    r"^head\.(\w+_head)\.conv\.(\d+)\.(?=weight|bias)",
    lambda m: f"head.{m[1]}.conv.{int(m[2]) // 2}.0.",
)


def torchvision_rules(state: State) -> list[Rule]:
    return TORCHVISION if is_fcos(state) else [*TORCHVISION, OLD_TOWERS]


def is_fcos(state: State) -> bool:
    return any("bbox_ctrness" in name for name in state)


def without_eps(state: State) -> State:
    """Variances so much smaller that our norms, which add `EPS` to them, compute what norms that add 0 do.

    torchvision sets its norms' epsilon to 0 for the first published weights of RetinaNet, Faster R-CNN and Mask R-CNN
    on ResNet-50 (`overwrite_eps`), and not for those of FCOS. They were trained with frozen norms, which count no
    batches; the second ones (v2) were not. The same goes for what others have made from those files.
    """
    frozen = not any(name.endswith("num_batches_tracked") for name in state)
    if not frozen or is_fcos(state) or "backbone.body.layer1.0.conv1.weight" not in state:
        return state
    lowest = 1e-12 - EPS  # so that no sum is 0
    return {n: (x - EPS).clamp(min=lowest) if n.endswith(".running_var") else x for n, x in state.items()}


# --- mmdetection -----------------------------------------------------------------------------------------------------

SWIN: list[Rule] = [  # torchvision counts patches, stages and halvings as layers of one sequence
    (r"^backbone\.patch_embed\.projection\.", "backbone.features.0.0."),
    (r"^backbone\.patch_embed\.norm\.", "backbone.features.0.2."),
    (r"^backbone\.stages\.(\d+)\.blocks\.", lambda m: f"backbone.features.{2 * int(m[1]) + 1}."),
    (r"^backbone\.stages\.(\d+)\.downsample\.", lambda m: f"backbone.features.{2 * int(m[1]) + 2}."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.0."),
    (r"\.ffn\.layers\.1\.", ".mlp.3."),
]
DEFORMABLE: list[Rule] = [(r"\.conv2_offset\.", ".conv2.conv_offset.")]  # as old files call it
PREDICTORS: list[Rule] = [
    (r"^bbox_head\.(?:gfl|atss)_cls\.", "head.cls."),
    (r"^bbox_head\.(?:gfl|atss)_reg\.", "head.box."),
    (r"^bbox_head\.atss_centerness\.", "head.centerness."),
    (r"^bbox_head\.reg_conf\.", "head.quality."),
    (r"^bbox_head\.(?:retina|conv|fcos)_cls\.", "head.classification_head.cls_logits."),
    (r"^bbox_head\.(?:retina|conv|fcos)_reg\.", "head.regression_head.bbox_reg."),
    (r"^bbox_head\.(?:conv|fcos)_centerness\.", "head.regression_head.bbox_ctrness."),
    (r"^bbox_head\.reppoints_cls_(conv|out)\.", r"head.cls_\1."),
    (r"^bbox_head\.reppoints_pts_(init|refine)_(conv|out)\.", r"head.\1_\2."),
    (r"^bbox_head\.moment_transfer$", "head.moment_transfer"),
]
TWO_STAGES: list[Rule] = [
    (r"^rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
    (r"^rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
    (r"^rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "roi_heads.box_head.fc6."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "roi_heads.box_head.fc7."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "roi_heads.box_predictor.cls_score."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"roi_heads.mask_head.\1.0."),
    (r"^roi_head\.mask_head\.upsample\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"^roi_head\.mask_head\.conv_logits\.", "roi_heads.mask_predictor.mask_fcn_logits."),
]
# By a name that only one kind of head has: our towers for classes and for boxes, and how a layer is numbered in them,
# either by itself or with the norm and the ReLU of each convolution in one sequence.
HEADS = ("head.classification_head.conv", "head.regression_head.conv")
TOWERS = {
    "gfl_cls": ("head.cls_tower", "head.box_tower", 3),
    "atss_cls": ("head.cls_tower", "head.box_tower", 3),
    "reppoints_cls_out": ("head.cls_tower", "head.pts_tower", 3),
    "conv_cls": (*HEADS, 3),
    "fcos_cls": (*HEADS, 3),
    "retina_cls": (*HEADS, 0),
}
LAYER = {"conv": 0, "gn": 1}


def mmdetection_rules(state: State) -> list[Rule]:
    rules = [*DEFORMABLE, *SWIN, *PREDICTORS, *TWO_STAGES, *neck_rules(state)]
    for predictor, (for_cls, for_box, step) in TOWERS.items():
        if f"bbox_head.{predictor}.weight" in state:
            rules += [tower_rule("cls", for_cls, step), tower_rule("reg", for_box, step)]
    return rules


def tower_rule(mine: str, here: str, step: int) -> Rule:
    def place(found: re.Match[str]) -> str:
        number, layer = int(found[1]), LAYER[found[2]]
        return f"{here}.{step * number + layer}." if step else f"{here}.{number}.{layer}."

    return (rf"^bbox_head\.{mine}_convs\.(\d+)\.(conv|gn)\.", place)


def neck_rules(state: State) -> list[Rule]:
    """The pyramid's convolutions, of which there are more than maps: the rest make the extra levels."""
    maps = sum(name.startswith("neck.lateral_convs.") and name.endswith(".conv.weight") for name in state)
    normed = any(name.startswith("neck.") and ".gn." in name for name in state)

    def place(found: re.Match[str]) -> str:
        number = int(found[2])
        where = "laterals" if found[1] == "lateral" else "outputs" if number < maps else "extras"
        layer = f".{LAYER[found[3]]}" if normed else ""
        return f"neck.{where}.{number - maps if where == 'extras' else number}{layer}."

    return [(r"^neck\.(lateral|fpn)_convs\.(\d+)\.(conv|gn)\.", place)]


def with_stacked_scales(state: State) -> State:
    """One tensor for the scales of all levels, which are a module each."""
    scales = {
        int(found[1]): name for name in state if (found := re.fullmatch(r"bbox_head\.scales\.(\d+)\.scale", name))
    }
    rest = {name: value for name, value in state.items() if name not in scales.values()}
    if scales:
        rest["head.scales"] = torch.stack([state[scales[level]].reshape(()) for level in sorted(scales)])
    return rest


def laid_out(name: str, value: Tensor) -> Tensor:
    """A tensor of mmdetection, by our name for it, in our layout."""
    for pattern, change in LAYOUTS:
        if re.fullmatch(pattern, name):
            return change(value)
    return value


def background_first(value: Tensor) -> Tensor:
    """Its row is the last one there."""
    return value.roll(1, 0)


def with_background(rows: int) -> Callable[[Tensor], Tensor]:
    """Rows of zeros in front, for the background, which has neither boxes nor masks there."""
    return lambda value: torch.cat([value.new_zeros(rows, *value.shape[1:]), value])


def halved(value: Tensor) -> Tensor:
    """What reads four neighbouring tokens of C channels: (..., C*4) there, with the neighbours row by row; (..., 4*C)
    here, column by column."""
    return value.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)


LAYOUTS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    (r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", background_first),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", with_background(4)),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)", with_background(1)),
    (r"backbone\.features\.\d+\.(reduction|norm)\.(weight|bias)", halved),
]
