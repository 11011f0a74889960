"""Memory is what the machine has free, within the limits of containers, jobs and the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tile_infer.engine.memory import available_bytes, human

GIB = 1 << 30
UNLIMITED = 9223372036854771712
"""What control groups of version 1 say where nothing is set."""


def system(
    root: Path,
    groups: str = "",
    files: dict[str, str | int] | None = None,
    *,
    free: int = 8 * GIB,
    address: str = "unlimited",
    mapped: int = 0,
) -> Path:
    """Write what a system tells of its memory; return the folder."""
    told: dict[str, str | int] = {
        "proc/meminfo": f"MemTotal: 999999999 kB\nMemAvailable: {free // 1024} kB\n",
        "proc/self/cgroup": groups,
        "proc/self/limits": f"Limit  Soft  Hard  Units\nMax address space  {address}  {address}\n",
        "proc/self/status": f"Name:\tpython\nVmSize:\t{mapped // 1024} kB\nVmRSS:\t1 kB\n",
        **{f"sys/fs/cgroup/{name}": text for name, text in (files or {}).items()},
    }
    for name, text in told.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def v2(folder: str, limit: int | str, used: int, cache: int = 0) -> dict[str, str | int]:
    prefix = f"{folder}/" if folder else ""
    return {
        f"{prefix}memory.max": limit,
        f"{prefix}memory.current": used,
        f"{prefix}memory.stat": f"anon 1\ninactive_file {cache}\nactive_file 7",
    }


def v1(folder: str, limit: int, used: int, cache: int = 0) -> dict[str, str | int]:
    return {
        f"memory/{folder}memory.limit_in_bytes": limit,
        f"memory/{folder}memory.usage_in_bytes": used,
        f"memory/{folder}memory.stat": f"inactive_file 5\ntotal_inactive_file {cache}",
    }


def test_without_limits_it_is_what_the_machine_has_free(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path)) == 8 * GIB
    assert available_bytes(tmp_path / "nothing there") > 0


def test_a_group_of_version_2_leaves_its_limit_less_what_it_uses(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/job", v2("job", 4 * GIB, 1 * GIB))
    assert available_bytes(root) == 3 * GIB


def test_pages_of_files_that_can_be_dropped_are_not_in_use(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/job", v2("job", 4 * GIB, 3 * GIB, cache=2 * GIB))
    assert available_bytes(root) == 3 * GIB


def test_the_narrowest_group_around_counts(tmp_path: Path) -> None:
    files = {
        **v2("slurm", 2 * GIB, GIB),
        **v2("slurm/job", 6 * GIB, GIB),
        **v2("slurm/job/step", "max", GIB),
    }
    assert available_bytes(system(tmp_path, "0::/slurm/job/step", files)) == GIB
    # The group next to it is none of ours.
    other = system(tmp_path / "other", "0::/mine", v2("theirs", GIB, 0))
    assert available_bytes(other) == 8 * GIB


def test_a_limit_beyond_what_is_free_changes_nothing(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/", v2("", 64 * GIB, GIB), free=2 * GIB)
    assert available_bytes(root) == 2 * GIB


def test_a_group_of_version_1_counts_as_well(tmp_path: Path) -> None:
    groups = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc"
    limited = v1("docker/abc/", 3 * GIB, 2 * GIB, cache=GIB)
    assert available_bytes(system(tmp_path / "a", groups, limited)) == 2 * GIB
    unlimited = v1("docker/abc/", UNLIMITED, 2 * GIB)
    assert available_bytes(system(tmp_path / "b", groups, unlimited)) == 8 * GIB


def test_a_container_that_sees_its_name_on_the_host_finds_its_limit(tmp_path: Path) -> None:
    # Only its own part of the tree is mounted, without the folders of that name.
    root = system(tmp_path / "a", "4:memory:/docker/abc", v1("", 3 * GIB, GIB))
    assert available_bytes(root) == 2 * GIB
    root = system(tmp_path / "b", "0::/../../docker/abc", v2("", 3 * GIB, GIB))
    assert available_bytes(root) == 2 * GIB


def test_a_full_group_leaves_nothing(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/job", v2("job", GIB, 2 * GIB))
    assert available_bytes(root) == 0


@pytest.mark.parametrize("text", ["", "0", "nonsense", "0::", "x:memory", "\x1b[31m"])
def test_groups_that_cannot_be_understood_set_no_limit(tmp_path: Path, text: str) -> None:
    assert available_bytes(system(tmp_path, text, {"memory.max": "soon"})) == 8 * GIB


def test_a_limit_of_the_address_space_counts_less_what_is_mapped(tmp_path: Path) -> None:
    root = system(tmp_path, address=str(5 * GIB), mapped=2 * GIB)
    assert available_bytes(root) == 3 * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell it")
def test_this_systems_own_limit_is_seen() -> None:
    script = (
        "import resource; from tile_infer.engine.memory import available_bytes, resident_bytes\n"
        "assert resident_bytes() > 1 << 20\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({3 * GIB}, {3 * GIB}))\n"
        "print(available_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < 3 * GIB


def test_sizes_are_told_in_units_for_people() -> None:
    assert (human(999), human(3 * GIB)) == ("999 B", "3.0 GB")
