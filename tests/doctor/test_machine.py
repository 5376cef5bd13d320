"""What is said of a machine: GPUs, memory, disks, shared memory, ports."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.doctor import host, machine
from fdd_ray.doctor.findings import Finding
from fdd_ray.doctor.host import Disk, Facts, Gpu, read_gpus
from fdd_ray.doctor.machine import look_at_address, look_at_machine, look_at_ports

GIB = 1 << 30
GOOD = Facts(
    host="h",
    python="3.11.7",
    packages={"torch": "2.13.0", "vllm": "0.32.0"},
    cpus=8,
    memory_bytes=64 * GIB,
    gpus=(),
    gpu_error="",
    temporary=Disk("/tmp", 100 * GIB, 50 * GIB),
    shm=Disk("/dev/shm", 32 * GIB, 32 * GIB),
    open_files=65536,
    compiler=True,
    variables={},
)
SMI = """\
0, GPU-aaaa-1, NVIDIA A100-SXM4-80GB, 81920
1, GPU-bbbb-2, NVIDIA A100-SXM4-80GB, 81920
"""


def bad(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level != "ok"]


def with_facts(**changes: Any) -> list[Finding]:
    return bad(look_at_machine(dataclasses.replace(GOOD, **changes)))


def test_a_good_machine_is_described() -> None:
    found = list(look_at_machine(dataclasses.replace(GOOD, gpus=(Gpu("A100", 81920),) * 2), "node 1: "))
    assert bad(found) == []
    assert found[0].found == "node 1: h: 8 CPUs, 64.0 GiB of memory, 2 GPUs (2 x A100, 80.0 GiB)"


@pytest.mark.parametrize(
    ("free", "level", "exit_code"), [(4, "problem", 4), (7, "note", 0), (1, "problem", 4), (50, "ok", 0)]
)
def test_the_disk_that_ray_lays_objects_aside_on(free: int, level: str, exit_code: int) -> None:
    found = look_at_machine(dataclasses.replace(GOOD, temporary=Disk("/tmp", 100 * GIB, free * GIB)))
    (finding,) = [f for f in found if "lays aside" in f.found]
    assert (finding.level, finding.exit_code) == (level, exit_code)
    assert level == "ok" or "RAY_TMPDIR" in finding.next


def test_a_full_disk_is_seen_through_the_function_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "disk_of", lambda path: Disk(path, 100 * GIB, 0))
    found = bad(look_at_machine(host.facts()))
    assert [f.exit_code for f in found if f.level == "problem"] == [4]
    assert any("/dev/shm" in f.found for f in found if f.level == "note")


def test_little_shared_memory_is_a_note() -> None:
    (finding,) = with_facts(shm=Disk("/dev/shm", 64 << 20, 64 << 20))
    assert finding.level == "note" and "64 MiB" in finding.found and "--shm-size" in finding.next
    (finding,) = with_facts(shm=Disk("/dev/shm", 8 * GIB, 8 * GIB))
    assert finding.level == "note" and "19.2 GiB" in finding.found
    assert with_facts(shm=None) == []


def test_a_driver_that_does_not_answer_is_a_problem() -> None:
    (finding,) = with_facts(gpu_error="nvidia-smi does not answer (TimeoutExpired)")
    assert (finding.level, finding.exit_code) == ("problem", 5)


def test_other_wants() -> None:
    assert [f.level for f in with_facts(open_files=1024)] == ["note"]
    assert [f.level for f in with_facts(memory_bytes=2 * GIB)] == ["note"]
    gpus = (Gpu("A100", 81920),)
    assert ["C compiler" in f.found for f in with_facts(gpus=gpus, compiler=False)] == [True]
    assert with_facts(compiler=False) == []
    (finding,) = with_facts(gpus=gpus, packages={"torch": "2.13.0+cpu"})
    assert (finding.level, finding.exit_code) == ("problem", 8)


def test_gpus_are_those_that_may_be_seen() -> None:
    assert read_gpus(SMI, None) == (Gpu("NVIDIA A100-SXM4-80GB", 81920),) * 2
    assert len(read_gpus(SMI, "1")) == 1 and len(read_gpus(SMI, "GPU-bbbb")) == 1 and len(read_gpus(SMI, "0,1")) == 2
    assert read_gpus(SMI, "") == () and read_gpus("", None) == () and read_gpus("No devices were found", None) == ()


def test_nvidia_smi_that_is_absent_fails_or_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.find_gpus() == ((), "")
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'driver/library mismatch'\nexit 18\n")
    script.chmod(0o755)
    assert host.find_gpus() == ((), "nvidia-smi fails: driver/library mismatch")
    script.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(host, "_SMI_S", 0.3)
    assert "TimeoutExpired" in host.find_gpus()[1]
    script.write_text(f"#!/bin/sh\nprintf '{SMI.splitlines()[0]}\\n'\n")
    monkeypatch.setattr(host, "_SMI_S", 20.0)
    assert host.find_gpus() == ((Gpu("NVIDIA A100-SXM4-80GB", 81920),), "")


def test_facts_travel_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "very-secret")
    facts = host.facts(["SOME_KEY", "NOT_SET_ANYWHERE"], ["/", "/no/such/folder"])
    text = json.dumps(dataclasses.asdict(facts))
    assert host.from_plain(json.loads(text)) == facts and facts.paths == {"/": True, "/no/such/folder": False}
    assert facts.variables == {"SOME_KEY": True, "NOT_SET_ANYWHERE": False} and "very-secret" not in text


def test_a_container_limits_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = host.memory_bytes()
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(host, "_CGROUP_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "none")))
    assert host.memory_bytes() == 1 << 20 < whole
    (tmp_path / "memory.max").write_text("max\n")
    assert host.memory_bytes() > 1 << 20


def test_ports_free_and_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(machine, "RAY_PORTS", {port: "Ray's head (GCS)"})
        (finding,) = look_at_ports()
        assert finding.level == "note" and f"port {port} (Ray's head (GCS))" in finding.found
    (finding,) = look_at_ports()
    assert finding.level == "ok"
    monkeypatch.setattr(host, "can_listen", lambda host="": "Operation not permitted")
    (finding,) = look_at_ports()
    assert (finding.level, finding.exit_code) == ("problem", 5)


def test_a_cluster_that_answers_and_one_that_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            assert [f.level for f in look_at_address(address)] == ["ok"]
    (finding,) = look_at_address(f"127.0.0.1:{port}")
    assert (finding.level, finding.exit_code) == ("problem", 5) and "RAY_ADDRESS" in finding.next
    (finding,) = look_at_address("nonsense")
    assert finding.level == "problem" and "no HOST:PORT" in finding.found


def test_which_cluster_a_run_would_join(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import utils

    with socket.create_server(("127.0.0.1", 0)) as server:
        noted = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(utils, "read_ray_address", lambda folder: noted)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        assert machine.cluster_address() == noted
        monkeypatch.setenv("RAY_ADDRESS", "local")
        assert machine.cluster_address() == ""
        monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
        assert machine.cluster_address() == "10.1.2.3:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    assert machine.cluster_address() == ""  # noted, and gone


def test_facts_import_nothing_heavy() -> None:
    code = (
        "import sys; from fdd_ray.doctor import host; host.facts();"
        "print([name for name in ('ray', 'torch', 'vllm', 'transformers', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
