"""Work on the machines of a Ray cluster. Nothing else imports Ray, which is an extra: pip install 'rftkit[cluster]'."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from rftkit.common.errors import UserError

RETRIES = 3  # of work whose machine was lost, or had no memory left
SECONDS = 120  # that a machine may take to load the kit
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # how who speaks to Ray begins


@contextmanager
def cluster(
    address: str,
    cpus: int,
    gpus: int | None,
    environment: dict[str, str],
    check: Callable[..., str | None],
    *given: Any,
) -> Iterator[Callable[..., Future]]:
    """A cluster. Yields what hands it a function with its arguments; what is at work when the block is left is ended.

    Args:
        address: HOST:PORT of its head, `auto` for the one this machine is a part of, or `local` for one of its own.
        cpus: of a piece of work; it has so many threads.
        gpus: of a piece of work; None: one, if the cluster has any.
        environment: variables of its processes.
        check: what each machine is asked before any work, of what is `given`; its answer is a UserError.
    """
    ray = _connected(address)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        gpus = min(1, int(ray.cluster_resources().get("GPU", 0))) if gpus is None else gpus
        if not any(
            node["Resources"].get("CPU", 0) >= cpus and node["Resources"].get("GPU", 0) >= gpus for node in nodes
        ):
            raise UserError(f"--ray: no machine of the cluster has {cpus} CPUs and {gpus} GPUs for a run")
        variables = environment | {"OMP_NUM_THREADS": str(cpus), "TQDM_DISABLE": "1"}
        variables |= {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        options = {"max_retries": RETRIES, "runtime_env": {"env_vars": variables}}
        _check(ray, nodes, ray.remote(num_cpus=0, **options)(check), *given)
        options |= {"num_cpus": cpus, "num_gpus": gpus}
        yield lambda work, *given: ray.remote(**options)(work).remote(*given).future()
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    """Ray, connected; UserError if it is not installed, or there is no such cluster."""
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)})  # before it is loaded
    try:
        import ray
    except ImportError as error:
        raise UserError("--ray needs Ray, which is not installed: pip install 'rftkit[cluster]'") from error
    alone = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if address == "local" else {}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address not in ("auto", "local"):
            _knock(address)
        ray.init(address, log_to_driver=False, logging_level="error", **alone)
    except (Exception, SystemExit) as error:
        ray.shutdown()
        raise UserError(f"--ray: no cluster at '{address}' that can be used: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray sets its own
    return ray


def _knock(address: str) -> None:
    """An error if nothing that speaks as Ray does answers: Ray itself would ask for two minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise UserError("name HOST:PORT, as `ray start --head` printed it, or auto or local")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(HTTP2)
        if connection.recv(4)[3:] != b"\4":  # the frame that answers holds settings
            raise UserError("what answers there is not Ray")


def _check(ray: Any, nodes: list[dict], check: Any, *given: Any) -> None:
    """Ask each machine, all at once."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    places = [On(node["NodeID"], soft=False) for node in nodes]
    waiting = [check.options(scheduling_strategy=place).remote(*given) for place in places]
    for node, answer in zip(nodes, waiting, strict=True):
        try:
            problem = ray.get(answer, timeout=SECONDS)
        except ray.exceptions.TaskUnschedulableError:  # it has gone since it was listed: no run goes there
            continue
        except Exception as error:  # the kit is not installed there
            problem = f"cannot make runs: {(str(error).strip() or type(error).__name__).splitlines()[-1]}"
        if problem:
            raise UserError(f"--ray: {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) {problem}")
