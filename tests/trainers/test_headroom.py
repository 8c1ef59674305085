"""How much memory of a GPU is free: torch is stood in for, by what it says where graphs were recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainers import headroom

CUDA = torch.device("cuda", 1)


def segment(size: int, allocated: int, pool: tuple[int, int] = (0, 0), *, device: int = 1) -> dict[str, Any]:
    """One of those that `torch.cuda.memory_snapshot` lists, without its blocks."""
    sizes = {"total_size": size, "allocated_size": allocated, "active_size": allocated}
    return {"device": device, **sizes, "segment_pool_id": pool, "segment_type": "large", "is_expandable": False}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What torch keeps on GPUs; of the second the driver has 50 bytes left."""
    segments: list[dict[str, Any]] = []

    def total(name: str) -> Any:
        return lambda device: sum(one[name] for one in segments if one.get("device", 1) == torch.device(device).index)

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 10_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", total("total_size"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", total("allocated_size"))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    return segments


def test_what_torch_keeps_is_free_but_for_what_it_keeps_for_graphs(listed: list[dict[str, Any]]) -> None:
    assert headroom.free(CUDA) == 50
    listed += [segment(1000, 300), segment(20, 20)]
    assert headroom.free(CUDA) == 50 + 700
    listed += [segment(4000, 1000, (0, 1)), segment(400, 0, (0, 2)), segment(64, 64, (0, 1))]
    assert headroom.free(CUDA) == 50 + 700
    listed += [segment(8000, 0, (0, 1), device=0), segment(8000, 0, device=0)]
    assert headroom.free(CUDA) == 50 + 700, "another device"


def test_the_device_is_the_present_one_if_nothing_is_said(
    listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1300)
    listed += [segment(1000, 300), segment(4000, 1000, (0, 1)), segment(8000, 0, (0, 1), device=0)]
    assert headroom.free(torch.device("cuda")) == 50 + 700


def test_where_torch_does_not_say_for_what_it_keeps_memory_all_of_it_counts(
    listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed += [{"total_size": 1000, "allocated_size": 300}]
    assert headroom.free(CUDA) == 50 + 700

    def refuse() -> None:
        raise RuntimeError("Calling snapshot with backend:cudaMallocAsync is not meaningful")

    monkeypatch.setattr(torch.cuda, "memory_snapshot", refuse)
    assert headroom.free(CUDA) == 50 + 700
