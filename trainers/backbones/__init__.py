"""The backbones that a study can name."""

from trainers.backbones.resnet import ResNet
from trainers.backbones.tiny import TinyResNet
