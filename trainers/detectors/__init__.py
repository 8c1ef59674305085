"""The detectors that a study can name."""

from trainers.detectors.gfl import GFL
