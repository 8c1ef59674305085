"""The detectors that a study can name."""

from trainers.detectors.atss_detector import ATSS
from trainers.detectors.faster_rcnn import FasterRCNN
from trainers.detectors.fcos import FCOS
from trainers.detectors.gfl import GFL
from trainers.detectors.gflv2 import GFLv2
from trainers.detectors.mask_rcnn import MaskRCNN
from trainers.detectors.mimicdet import MimicDet
from trainers.detectors.reppoints import RepPoints
from trainers.detectors.retinanet import RetinaNet
