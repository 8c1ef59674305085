"""What published checkpoints hold, written down by hand: their names, ours and the shapes, in loops over blocks.

Nothing here knows the tables of `trainers.weight_names`.
"""

from collections.abc import Iterator

Shape = tuple[int, ...]
Entry = tuple[str, str, Shape]  # the published name, ours, the shape of both

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def both(name: str, *shape: int) -> Entry:
    return name, name, shape


def pair(theirs: str, mine: str, *shape: int) -> Iterator[Entry]:
    """A weight, and a bias with an entry for each of its rows."""
    yield f"{theirs}.weight", f"{mine}.weight", shape
    yield f"{theirs}.bias", f"{mine}.bias", shape[:1]


def norm(name: str, channels: int) -> Iterator[Entry]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield both(f"{name}.{part}", channels)
    yield both(f"{name}.num_batches_tracked")


def resnet(depth: int, *, groups: int = 1, width: int = 64, deformable: bool = False) -> Iterator[Entry]:
    """mmdetection's names of a ResNet are torchvision's and ours."""
    yield both("backbone.conv1.weight", 64, 3, 7, 7)
    yield from norm("backbone.bn1", 64)
    before = 64
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        planes = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            at = f"backbone.layer{stage}.{block}"
            if depth < 50:
                after = planes
                convs = [(planes, before, 3), (planes, planes, 3)]
            else:
                after = 4 * planes
                inner = planes * width // 64 * groups
                convs = [(inner, before, 1), (inner, inner // groups, 3), (after, inner, 1)]
            for i, (rows, columns, size) in enumerate(convs, start=1):
                yield both(f"{at}.conv{i}.weight", rows, columns, size, size)
                yield from norm(f"{at}.bn{i}", rows)
            if deformable and stage > 1:
                yield from pair(f"{at}.conv2.conv_offset", f"{at}.conv2.conv_offset", 18, inner, 3, 3)
            if block == 0 and before != after:
                yield both(f"{at}.downsample.0.weight", after, before, 1, 1)
                yield from norm(f"{at}.downsample.1", after)
            before = after


def swin(depths: tuple[int, ...], channels: int, heads: tuple[int, ...]) -> Iterator[Entry]:
    """mmdetection's Swin, and ours, which are torchvision's names."""
    yield from pair("backbone.patch_embed.projection", "backbone.features.0.0", channels, 3, 4, 4)
    yield from pair("backbone.patch_embed.norm", "backbone.features.0.2", channels)
    for stage, (blocks, number) in enumerate(zip(depths, heads, strict=True)):
        c = channels * 2**stage
        for block in range(blocks):
            theirs, mine = f"backbone.stages.{stage}.blocks.{block}", f"backbone.features.{(1, 3, 5, 7)[stage]}.{block}"
            yield from pair(f"{theirs}.norm1", f"{mine}.norm1", c)
            table = "relative_position_bias_table"
            yield f"{theirs}.attn.w_msa.{table}", f"{mine}.attn.{table}", (169, number)
            yield from pair(f"{theirs}.attn.w_msa.qkv", f"{mine}.attn.qkv", 3 * c, c)
            yield from pair(f"{theirs}.attn.w_msa.proj", f"{mine}.attn.proj", c, c)
            yield from pair(f"{theirs}.norm2", f"{mine}.norm2", c)
            yield from pair(f"{theirs}.ffn.layers.0.0", f"{mine}.mlp.0", 4 * c, c)
            yield from pair(f"{theirs}.ffn.layers.1", f"{mine}.mlp.3", c, 4 * c)
        if stage < 3:
            theirs, mine = f"backbone.stages.{stage}.downsample", f"backbone.features.{(2, 4, 6)[stage]}"
            yield from pair(f"{theirs}.norm", f"{mine}.norm", 4 * c)
            yield f"{theirs}.reduction.weight", f"{mine}.reduction.weight", (2 * c, 4 * c)
        yield from pair(f"backbone.norm{stage}", f"backbone.norm{stage}", c)


def pyramid(*channels: int, first_extra: int | None = None) -> Iterator[Entry]:
    """A level for each map, and two extra levels where the first reads so many channels."""
    for i, c in enumerate(channels):
        yield from pair(f"neck.lateral_convs.{i}.conv", f"neck.laterals.{i}", 256, c, 1, 1)
        yield from pair(f"neck.fpn_convs.{i}.conv", f"neck.outputs.{i}", 256, 256, 3, 3)
    if first_extra is not None:
        assert len(channels) == 3
        yield from pair("neck.fpn_convs.3.conv", "neck.extras.0", 256, first_extra, 3, 3)
        yield from pair("neck.fpn_convs.4.conv", "neck.extras.1", 256, 256, 3, 3)


def normed_pyramid(*channels: int) -> Iterator[Entry]:
    """Of RepPoints: three maps, extra levels from the coarsest one, a group norm after each convolution."""
    places = [(f"neck.lateral_convs.{i}", f"neck.laterals.{i}", (256, c, 1, 1)) for i, c in enumerate(channels)]
    places += [(f"neck.fpn_convs.{i}", f"neck.outputs.{i}", (256, 256, 3, 3)) for i in range(3)]
    places += [("neck.fpn_convs.3", "neck.extras.0", (256, channels[-1], 3, 3))]
    places += [("neck.fpn_convs.4", "neck.extras.1", (256, 256, 3, 3))]
    for theirs, mine, shape in places:
        yield f"{theirs}.conv.weight", f"{mine}.0.weight", shape
        yield from pair(f"{theirs}.gn", f"{mine}.1", 256)


def towers(cls: str, box: str, layers: tuple[int, ...], *, bias: bool = False) -> Iterator[Entry]:
    """Convolutions with group norm; `layers` are our numbers of the convolutions, each followed by its norm."""
    for theirs, mine in (("bbox_head.cls_convs", cls), ("bbox_head.reg_convs", box)):
        for i, layer in enumerate(layers):
            yield f"{theirs}.{i}.conv.weight", f"{mine}.{layer}.weight", (256, 256, 3, 3)
            if bias:
                yield f"{theirs}.{i}.conv.bias", f"{mine}.{layer}.bias", (256,)
            yield from pair(f"{theirs}.{i}.gn", f"{mine}.{layer + 1}", 256)


def gfl(classes: int = 80) -> Iterator[Entry]:
    yield from towers("head.cls_tower", "head.box_tower", (0, 3, 6, 9))
    yield from pair("bbox_head.gfl_cls", "head.cls", classes, 256, 3, 3)
    yield from pair("bbox_head.gfl_reg", "head.box", 68, 256, 3, 3)


def gfl2() -> Iterator[Entry]:
    yield from gfl()
    yield from pair("bbox_head.reg_conf.0", "head.quality.0", 64, 20, 1, 1)
    yield from pair("bbox_head.reg_conf.2", "head.quality.2", 1, 64, 1, 1)


def atss() -> Iterator[Entry]:
    yield from towers("head.cls_tower", "head.box_tower", (0, 3, 6, 9))
    yield from pair("bbox_head.atss_cls", "head.cls", 80, 256, 3, 3)
    yield from pair("bbox_head.atss_reg", "head.box", 4, 256, 3, 3)
    yield from pair("bbox_head.atss_centerness", "head.centerness", 1, 256, 3, 3)


def fcos(*, bias: bool) -> Iterator[Entry]:
    cls, box = "head.classification_head", "head.regression_head"
    yield from towers(f"{cls}.conv", f"{box}.conv", (0, 3, 6, 9), bias=bias)
    yield from pair("bbox_head.conv_cls", f"{cls}.cls_logits", 80, 256, 3, 3)
    yield from pair("bbox_head.conv_reg", f"{box}.bbox_reg", 4, 256, 3, 3)
    yield from pair("bbox_head.conv_centerness", f"{box}.bbox_ctrness", 1, 256, 3, 3)


def retinanet() -> Iterator[Entry]:
    cls, box = "head.classification_head", "head.regression_head"
    for i in range(4):
        yield from pair(f"bbox_head.cls_convs.{i}.conv", f"{cls}.conv.{i}.0", 256, 256, 3, 3)
        yield from pair(f"bbox_head.reg_convs.{i}.conv", f"{box}.conv.{i}.0", 256, 256, 3, 3)
    yield from pair("bbox_head.retina_cls", f"{cls}.cls_logits", 720, 256, 3, 3)
    yield from pair("bbox_head.retina_reg", f"{box}.bbox_reg", 36, 256, 3, 3)


def reppoints() -> Iterator[Entry]:
    yield from towers("head.cls_tower", "head.pts_tower", (0, 3, 6))
    yield "bbox_head.moment_transfer", "head.moment_transfer", (2,)
    yield "bbox_head.reppoints_cls_conv.weight", "head.cls_conv.weight", (256, 256, 3, 3)
    yield from pair("bbox_head.reppoints_cls_out", "head.cls_out", 80, 256, 1, 1)
    yield from pair("bbox_head.reppoints_pts_init_conv", "head.init_conv", 256, 256, 3, 3)
    yield from pair("bbox_head.reppoints_pts_init_out", "head.init_out", 18, 256, 1, 1)
    yield "bbox_head.reppoints_pts_refine_conv.weight", "head.refine_conv.weight", (256, 256, 3, 3)
    yield from pair("bbox_head.reppoints_pts_refine_out", "head.refine_out", 18, 256, 1, 1)


def two_stages(*, masks: bool = False) -> Iterator[Entry]:
    """All but what differs in rows: the predictions of the second stage."""
    yield from pair("rpn_head.rpn_conv", "rpn.head.conv.0.0", 256, 256, 3, 3)
    yield from pair("rpn_head.rpn_cls", "rpn.head.cls_logits", 3, 256, 1, 1)
    yield from pair("rpn_head.rpn_reg", "rpn.head.bbox_pred", 12, 256, 1, 1)
    yield from pair("roi_head.bbox_head.shared_fcs.0", "roi_heads.box_head.fc6", 1024, 12544)
    yield from pair("roi_head.bbox_head.shared_fcs.1", "roi_heads.box_head.fc7", 1024, 1024)
    if masks:
        for i in range(4):
            yield from pair(f"roi_head.mask_head.convs.{i}.conv", f"roi_heads.mask_head.{i}.0", 256, 256, 3, 3)
        yield from pair("roi_head.mask_head.upsample", "roi_heads.mask_predictor.conv5_mask", 256, 256, 2, 2)
