"""The backbones that a study can name."""

from trainers.backbones.halved import Halved
from trainers.backbones.inception import Inception
from trainers.backbones.mobilenet import MobileNetV2, MobileNetV3
from trainers.backbones.resnet import ResNet
from trainers.backbones.resnext import ResNeXt
from trainers.backbones.swin import Swin
from trainers.backbones.tiny import TinyResNet
from trainers.backbones.vgg import VGG
