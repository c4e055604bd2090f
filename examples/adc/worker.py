"""A worker for an application like Antenna: a process for each GPU, each with a DataLoader.

    python worker.py http://127.0.0.1:8000/api/v2 TOKEN --gpus 2 --loaders 4 --pipelines moths

Where there is no torch the images are loaded in the worker's own process.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import requests

from model import Model, load
from natslease.contrib.torch import TaskDataset
from natslease.worker import HTTPSource, run_slots

VERSION = "1.0"


def batches(dataset: TaskDataset, options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Batches of loaded items, from a DataLoader where there is one."""
    try:
        from torch.utils.data import DataLoader
    except ImportError:
        yield from dataset
        return
    # The dataset makes the batches: so a batch need not be full to be worked on.
    loader: Iterable[list[dict[str, Any]]] = DataLoader(
        dataset, batch_size=None, num_workers=options.loaders
    )
    yield from loader


def work(gpu: int, options: argparse.Namespace) -> int:
    """One GPU's process. Returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = Model(gpu)
    source = HTTPSource(
        options.base,
        options.token,
        pipelines=options.pipelines or (),
        service=service_name(options),
        slot=gpu,
        version=VERSION,
    )
    with TaskDataset(
        source,
        load=load,
        batch_size=options.batch,
        batches=True,
        until_empty=options.until_empty,
    ) as dataset:
        for items in batches(dataset, options):
            for item, result in zip(items, model.predict(items), strict=True):
                dataset.done(item["key"], result)  # posted in the background
    return int(dataset.exit_code or 0)


def service_name(options: argparse.Namespace) -> str:
    return f"{options.name} ({platform.node()})"


def register(options: argparse.Namespace) -> None:
    """Tells each project which pipelines this service has."""
    session = requests.Session()
    session.headers["Authorization"] = f"Token {options.token}"
    answer = session.get(f"{options.base}/projects/", timeout=30)
    answer.raise_for_status()
    pipelines = [
        {"slug": slug, "name": slug.title(), "version": VERSION} for slug in options.pipelines or ()
    ]
    for project in answer.json()["results"]:
        session.post(
            f"{options.base}/projects/{project['id']}/pipelines/",
            json={"processing_service_name": service_name(options), "pipelines": pipelines},
            timeout=30,
        ).raise_for_status()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("token")
    parser.add_argument("--name", default="adc")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--loaders", type=int, default=4, help="DataLoader subprocesses per GPU")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pipelines", nargs="*", help="left out: all that the token may see")
    parser.add_argument("--until-empty", action="store_true", help="end when there is nothing")
    options = parser.parse_args()
    register(options)
    return run_slots(work, options.gpus, args=(options,))


if __name__ == "__main__":
    sys.exit(main())
