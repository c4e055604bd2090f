"""A worker with a GPU, without the GPU: a TaskDataset and a DataLoader, to be run and killed."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from natslease.contrib.torch import TaskDataset
from natslease.worker import HTTPSource, Task, run_slots
from taskserver import TOKEN


def load(task: Task) -> dict[str, Any]:
    """What a subprocess makes of a task."""
    unlucky = Path("unlucky")
    if task.payload["image_id"] == "13" and unlucky.exists():
        unlucky.unlink()
        raise OSError("the image is not there today")
    return {"key": task.key, "id": task.id, "pid": os.getpid()}


def loader_class(name: str) -> Any:
    if name == "torch":
        from torch.utils.data import DataLoader

        return DataLoader
    from standinloader import DataLoader as StandIn

    return StandIn


def work(slot: int, options: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
    source = HTTPSource(
        options["base"], TOKEN, service="test", slot=slot, timeout=(2, 5), **options["source"]
    )
    batch_size = options["batch_size"]
    dataset_options = options.get("dataset", {})
    pids = set()
    loaders = 0
    with TaskDataset(
        source,
        load=load,
        batch_size=batch_size,
        **{"idle_backoff": 0.5, **dataset_options},
    ) as dataset:
        sys.stdout.write(f"working {os.getpid()}\n")
        sys.stdout.flush()
        again = True
        while again:
            again = False
            loaders += 1
            batches = loader_class(options["loader"])(
                dataset,
                batch_size=None if dataset_options.get("batches") else batch_size,
                num_workers=options["num_workers"],
                multiprocessing_context=options["method"] if options["num_workers"] else None,
                collate_fn=list,
            )
            try:
                for batch in batches:
                    time.sleep(options["pause"] * len(batch))
                    for item in batch:
                        pids.add(item["pid"])
                        dataset.done(item["key"], item["id"])
            except RuntimeError as error:
                print(f"a subprocess was killed: {error}", flush=True)
                again = True
    print(f"subprocesses: {sorted(pids)}, loaders: {loaders}, {dataset.exit_code!r}", flush=True)
    return int(dataset.exit_code or 0)


def main() -> None:
    options = {
        "loader": "standin",
        "source": {},
        "method": "fork",
        "pause": 0.0,
        "slots": 0,
        **json.loads(sys.argv[1]),
    }
    if options["slots"]:
        sys.exit(run_slots(work, options["slots"], args=(options,), restart=False))
    sys.exit(work(0, options))


if __name__ == "__main__":
    main()
