"""Metrics by name. Each takes a split and what was found in it, and returns figures; more is better."""

from trainers.metrics.coco import CocoAP
