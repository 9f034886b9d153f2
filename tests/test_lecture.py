"""The course's PyTorch loop runs with only its import lines changed, and PyTorch ends at the same weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SOURCE = Path(__file__).parent / "lecture" / "logistic.py"
GOLDEN = Path(__file__).parent / "golden" / "lecture.json"
EPOCHS, BATCH = 10, 64


def lecture(library: str, name: str = "lecture") -> dict[str, Any]:
    """The names of the lecture's file, with its import lines meant for a library."""
    text = SOURCE.read_text(encoding="utf-8")
    if library != "torch":
        text = re.sub(r"^import torch$", f"import {library} as torch", text, flags=re.MULTILINE)
        text = re.sub(r"^from torch\b", f"from {library}", text, flags=re.MULTILINE)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(text, str(SOURCE), "exec"), names)
    return names


def with_slalom() -> dict[str, Any]:
    """Train with Slalom; what PyTorch needs to do the same (weights, batches), and where it led."""
    names = lecture("slalom")
    asked: list[int] = []

    class Recorded(names["Points"]):
        def __getitem__(self, index: int) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    names["torch"].manual_seed(0)
    model, dataset = names["LogisticRegression"](5), Recorded()
    start = {name: value.tolist() for name, value in model.state_dict().items()}
    loader = names["DataLoader"](dataset, batch_size=BATCH, shuffle=True)
    losses = names["train"](model, loader, EPOCHS)
    n = len(dataset)
    order = [asked[epoch * n : (epoch + 1) * n] for epoch in range(EPOCHS)]
    accuracy = names["accuracy"](model, dataset)
    end = {name: value.tolist() for name, value in model.state_dict().items()}
    return {"start": start, "order": order, "losses": losses, "end": end, "accuracy": accuracy}


def with_pytorch(run: dict[str, Any]) -> dict[str, Any]:
    """Train with PyTorch from the same weights on the same batches."""
    names = lecture("torch")
    torch = names["torch"]
    model, dataset = names["LogisticRegression"](5), names["Points"]()
    model.load_state_dict({name: torch.tensor(value) for name, value in run["start"].items()})

    class Passes:
        """The recorded batches, another pass at each loop."""

        def __init__(self) -> None:
            self.left = iter(run["order"])

        def __iter__(self) -> Any:
            order = next(self.left)
            return iter([order[i : i + BATCH] for i in range(0, len(order), BATCH)])

        def __len__(self) -> int:
            return len(range(0, len(dataset), BATCH))

    losses = names["train"](model, names["DataLoader"](dataset, batch_sampler=Passes()), EPOCHS)
    end = {name: value.tolist() for name, value in model.state_dict().items()}
    return {"losses": losses, "end": end, "accuracy": names["accuracy"](model, dataset)}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["end"].keys() == theirs["end"].keys()
    for name, value in theirs["end"].items():
        np.testing.assert_allclose(ours["end"][name], value, rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-6)
    assert ours["accuracy"] == theirs["accuracy"]


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return with_slalom()


def test_only_import_lines_are_changed() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    imports = [line for line in text.splitlines() if "torch" in line and re.match(r"(import|from) ", line)]
    assert imports == [
        "import torch",
        "from torch import nn",
        "from torch.optim.lr_scheduler import ExponentialLR",
        "from torch.utils.data import DataLoader, Dataset",
    ]
    assert lecture("slalom")["torch"].__name__ == "slalom"


def test_the_loop_runs_as_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    lecture("slalom", "__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch 0: loss 0.") and "next rate 0.009000" in lines[0]
    assert float(lines[-1].removeprefix("accuracy ")) > 0.75


def test_it_learns_and_shuffles_anew_each_epoch(run: dict[str, Any]) -> None:
    assert run["losses"][-1] < 0.55 < run["losses"][0]  # the entropy of the classes is 0.673
    assert len({tuple(order) for order in run["order"]}) == EPOCHS
    assert all(sorted(order) == list(range(500)) for order in run["order"])


def test_pytorch_ended_at_the_same_weights(run: dict[str, Any]) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["start"] == run["start"] and golden["order"] == run["order"], (
        "Slalom starts or shuffles in another way than when the golden file was written: tools/golden_lecture.py"
    )
    same(run, golden)


def test_pytorch_ends_at_the_same_weights(run: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    same(run, with_pytorch(run))
