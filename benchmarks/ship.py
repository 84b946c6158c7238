"""Put a trained run into the package: weights in half precision, description with loss curve, held-out reference fields.

Usage: python benchmarks/ship.py RUN [--references N]. The name of the run folder becomes the name of the model; its data must be those
of an embedded problem, from which the reference fields are drawn with another seed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from pcfm.flow import save_description, save_weights
from pcfm.shelf import MODELS, load
from pde_datasets import PROBLEMS
from pde_datasets.store import write

REFERENCE_SEED = 1
"""Seed of the reference fields: none of the training fields has it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--references", type=int, default=64)
    options = parser.parse_args()
    flow = load(options.run)
    folder = MODELS / options.run.name
    folder.mkdir(exist_ok=True)
    description = json.loads((options.run / "model.json").read_text())
    record = json.loads((options.run / "record.json").read_text())
    problem = PROBLEMS[description["card"]["data"]["problem"]]()
    block = problem.draw(4 * options.references, seed=REFERENCE_SEED)
    drawn = replace(block, u=block.u[::4], parameters={name: values[::4] for name, values in block.parameters.items()})
    description["card"] |= {
        "summary": f"{problem.name}: {problem.equation}",
        "weights": "float16, widened to float32 when loaded",
        "seconds": round(description["card"]["history"][-1]["seconds"]),
        "device": record["device"],
        "reference": f"{options.references} fields of seed {REFERENCE_SEED}, every fourth",
    }
    save_weights(folder / "weights.safetensors", flow.network.state_dict(), torch.float16)
    save_description(folder / "model.json", description)
    write(folder / "reference.h5", replace(drawn, u=drawn.u.to(torch.float32)), overwrite=True)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder.name}: {size:.1f} MB in {folder}")


if __name__ == "__main__":
    main()
