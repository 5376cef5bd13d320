#!/usr/bin/env bash
# Makes a bare Ubuntu 24.04 machine a node of the cluster:  bash setup.sh head|worker EXTRA[,EXTRA...]
#
# aws.yaml, gcp.yaml and azure.yaml run it on each node, from the files that `ray up` copied beside it. The EXTRAs
# are those of pyproject.toml (s3, gcs, api, lora). A head gets the CPU build of torch and no vLLM; a worker gets both for
# its GPU, and is refused without one. All versions are those of constraints.txt. Running it again does nothing.
set -euo pipefail

kind=${1:?head or worker}
extras=${2:?extras of pyproject.toml, such as s3,api}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$HOME/venv

case $kind in
head | worker) ;;
*)
  echo "setup.sh: $kind is no kind of node; say head or worker" >&2
  exit 2
  ;;
esac

# Files hold keys and the token; nobody else on the node shall read them.
for file in "$HOME/.ray/auth_token" "$HOME/.fdd_ray.env"; do
  [ ! -e "$file" ] || chmod 600 "$file"
done

done_before=$(cat "$root/constraints.txt" "$root/pyproject.toml" "${BASH_SOURCE[0]}" | sha256sum | cut -c 1-16)
ready=$venv/.ready-$kind-$extras-$done_before
[ ! -e "$ready" ] || exit 0

if [ "$kind" = worker ] && ! nvidia-smi >/dev/null; then
  echo "setup.sh: no NVIDIA driver answers here; take an image that has one" >&2
  exit 1
fi

# A fresh machine may still be installing its own updates, so wait for the lock. Triton and DeepSpeed compile.
sudo apt-get -o DPkg::Lock::Timeout=600 update -q
sudo apt-get -o DPkg::Lock::Timeout=600 install -q -y --no-install-recommends build-essential python3-dev python3-venv rsync

python3 -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet)
if [ "$kind" = head ]; then
  # First and pinned, or pip would pull gigabytes of CUDA: as in the Makefile.
  torch=$(sed -n 's/^torch==//p' "$root/constraints.txt")
  "${pip[@]}" "torch==$torch+cpu" || "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu "torch==$torch"
  "${pip[@]}" -c "$root/constraints.txt" -e "$root[$extras]"
else
  # The GPU builds of torch and vLLM pin two packages otherwise than the CPU builds, with which constraints.txt was made.
  sed '/^apache-tvm-ffi==/d; /^triton==/d' "$root/constraints.txt" >"$venv/constraints.txt"
  "${pip[@]}" -c "$venv/constraints.txt" -e "$root[gpu,$extras]"
fi
touch "$ready"
