"""How the workers of a stage find one another: on one node by 127.0.0.1 alone.

Ray Train has torch listen on all addresses of the first worker's node, and gloo on that of each, and neither asks for a
token. Where all workers are on one node nobody else needs to reach them.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from torch._C._distributed_c10d import TCPStore

HERE = "127.0.0.1"


class Meeting(TorchConfig):
    """Ray Train's own, but for workers that are all on one node."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Meeting


class _Meeting(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        if len({*worker_group.execute(_node)}) > 1:
            super().on_start(worker_group, backend_config)
            return
        port = worker_group.execute_single(0, _listen)
        worker_group.execute(_stay, port)
        worker_group.execute(_set_torch_distributed_env_vars)
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        told = {
            "backend": backend_config.backend or ("nccl" if gpus > 0 else "gloo"),
            "world_size": len(worker_group),
            "init_method": f"tcp://{HERE}:{port}",
            "timeout_s": backend_config.timeout_s,
        }
        ranks = range(len(worker_group))
        join = _setup_torch_process_group
        ray.get([worker_group.execute_single_async(rank, join, world_rank=rank, **told) for rank in ranks])


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _listen() -> int:
    return int(_store().port)


@cache
def _store() -> TCPStore:
    """By which all meet, in the first worker's process. Of those that share a port torch makes one, so that what it is
    asked for there later is this one; and which address it is to listen at it does not ask, but takes a socket."""
    server = socket.create_server((HERE, 0))
    port, listening = server.getsockname()[1], server.detach()
    return TCPStore(HERE, port, is_master=True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listening)


def _stay(port: int) -> None:
    """What a worker listens at later is on the loopback interface, unless somebody has said otherwise."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={loopback}")  # no other that begins so
    os.environ.update(MASTER_ADDR=HERE, MASTER_PORT=str(port))  # where torch's users look for it
