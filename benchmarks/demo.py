"""The demo: Dice against the truth of a slide whose seed the network never saw, and its picture."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs

from results_file import RESULTS, save


def main() -> None:
    """Run the demo as a user does and keep its figure and its picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [str(Path(sys.executable).parent / "tile-infer"), "demo", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(done.stdout)
        dice = re.search(r"Dice\D*(0\.\d+)", done.stdout)
        if dice is None:
            raise SystemExit("the demo printed no Dice")
        picture = imagecodecs.png_decode((folder / "demo.png").read_bytes())
        (RESULTS / "demo.jpg").write_bytes(imagecodecs.jpeg_encode(picture, level=85))
        print(save("demo", {"dice": float(dice[1])}), json.dumps(float(dice[1])))


if __name__ == "__main__":
    main()
