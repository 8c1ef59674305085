"""The distillation losses: a study may name what this file imports."""

from trainers.distill.kd import KD
from trainers.distill.ld import LD
from trainers.distill.mimic import Mimic
from trainers.distill.pkd import PKD
