"""The distillation losses: a study may name what this file imports."""

from trainers.distill.crosskd import CrossKD
from trainers.distill.cwd import CWD
from trainers.distill.defeat import DeFeat
from trainers.distill.fgd import FGD
from trainers.distill.fgfi import FGFI
from trainers.distill.gi import GI
from trainers.distill.imitation import Imitation
from trainers.distill.kd import KD
from trainers.distill.ld import LD
from trainers.distill.mimic import Mimic
from trainers.distill.pkd import PKD
from trainers.distill.tadf import TADF
