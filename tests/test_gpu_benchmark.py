"""The benchmark of a GPU runs as it stands, here with the CPU for a device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def test_the_benchmark_of_a_gpu_runs_on_a_cpu() -> None:
    options = ["--device", "cpu", "--small", "--widths", "4", "--precisions", "fp32", "bf16"]
    options += ["--side", "700", "--rounds", "1", "--shared", "cpu,cpu"]
    done = subprocess.run(
        [sys.executable, str(GPU), *options], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["multiply_adds_per_px"]["4"] == pytest.approx(735040 / 256, rel=0.05)
    threshold, unet = found["networks"]
    assert threshold["width"] == "threshold"
    for row in (threshold["engine"][0], unet["engine"][0]):
        assert "failed" not in row, row
        assert row["mpx_per_second"] > 0
        assert row["to_device_bytes_per_px"] >= 3
        assert row["from_device_bytes_per_px"] >= 1
    exact, shared, narrow, _ = unet["engine"]
    for row, devices in ((exact, 1), (shared, 2)):
        assert (row["labels_differing_from_fp32"], row["form"]) == (0, "graph")
        assert (row["devices"], row["precision"]) == (devices, "fp32")
        assert row["over_network_alone"] > 0
    assert exact["of_bf16_matrix_rate"] > 0  # above 1 on a CPU that has to imitate bf16
    assert "no effect on TorchScript on a CPU" in narrow["failed"]
    assert not any("failed" in row for row in unet["alone"]["rows"])
