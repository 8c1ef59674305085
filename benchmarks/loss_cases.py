"""Which distillation losses `losses.py` times, on which detector, and the plain way of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import plain
import plain_heads
import plain_regions


class Case(NamedTuple):
    """A loss, on which detector, with what arguments, and what is to be compared with it."""

    loss: str
    plain: plain.Plain
    detector: str = "GFL"
    args: Mapping[str, Any] = MappingProxyType({})


REGIONS_ALONE = {
    "backbone_foreground_weight": 0.0,
    "backbone_background_weight": 0.0,
    "foreground_weight": 0.0,
    "background_weight": 0.0,
}
REGIONS_OF_GI = {"cells_weight": 0.0, "regions_weight": 0.005, "relation_weight": 40.0}
CASES = {
    "LD": Case("LD", plain.dense_ld),
    "LD, main region": Case("LD", plain.dense_ld, args={"vlr_weight": 0.0}),
    "KD": Case("KD", plain.dense_kd),
    "KD, yes or no": Case("KD", plain.dense_kd, args={"form": "binary"}),
    "PKD": Case("PKD", plain.reshaped_pkd),
    "CWD": Case("CWD", plain.softmax_cwd),
    "FGD": Case("FGD", plain.looped_fgd),
    "CrossKD": Case("CrossKD", plain_heads.levelled_crosskd),
    "GI": Case("GI", plain_heads.masked_gi),
    "GI, regions": Case("GI", plain_heads.masked_gi, args=REGIONS_OF_GI),
    "Imitation": Case("Imitation", plain.masked_imitation),
    "FGFI": Case("FGFI", plain.looped_fgfi),
    "DeFeat": Case("DeFeat", plain.masked_defeat),
    "TADF": Case("TADF", plain.masked_tadf),
    "PKD, two stages": Case("PKD", plain.reshaped_pkd, "FasterRCNN"),
    "KD, two stages": Case("KD", plain_regions.averaged_kd, "FasterRCNN"),
    "Mimic": Case("Mimic", plain.cropped_mimic, "FasterRCNN"),
    "DeFeat, classes of regions": Case("DeFeat", plain_regions.masked_cls_defeat, "FasterRCNN", REGIONS_ALONE),
    "TADF, regions": Case("TADF", plain_regions.masked_region_tadf, "FasterRCNN", {"feature_weight": 0.0}),
}
