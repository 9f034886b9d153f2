"""Write tests/golden/tagger.safetensors: a model's weights by PyTorch, an input, and what PyTorch makes of it.

Run it where PyTorch is installed: ``python tools/golden_weights.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_sequence import FOLDER, tagger  # noqa: E402 (the checkout must be on the path)


def main() -> None:
    torch.manual_seed(0)
    model = tagger(torch.nn)
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 5))  # so that the running statistics are not those of the beginning
        x = torch.randn(4, 6, 5)
        out = model.eval()(x)
    path = FOLDER / "tagger.safetensors"
    save_file({**model.state_dict(), "x": x, "out": out}, path)
    print(f"{path.name}: {path.stat().st_size} bytes by PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
