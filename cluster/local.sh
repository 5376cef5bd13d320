#!/usr/bin/env bash
# A cluster of this one machine, with token authentication and the dashboard, to submit jobs to:
#
#   bash cluster/local.sh up                                      # more options of `ray start` may follow
#   bash cluster/local.sh submit                                  # jobs/tiny.yaml
#   bash cluster/local.sh submit jobs/mine.yaml --set rounds=1
#   bash cluster/local.sh down                                    # ends every Ray of yours on this machine
#
# Run it from the repository root, with the `ray` of .venv on the PATH or in .venv.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH
export PATH RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
# Without it Ray takes 127.0.0.1 for this machine's address in the network, and only the dashboard keeps to itself.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
# `ray job stop` ends the job after 3 s otherwise; rows in flight get flow.grace_s, 30 s.
export RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-60}

case ${1:-} in
up)
  (umask 077 && ray get-auth-token --generate >/dev/null) # in ~/.ray/auth_token, made once
  chmod 600 "$HOME/.ray/auth_token"
  ray start --head --node-ip-address=127.0.0.1 --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 \
    --disable-usage-stats "${@:2}"
  ;;
submit)
  shift
  experiment=${1:-jobs/tiny.yaml}
  ray job submit --working-dir . -- python jobs/distill.py --experiment "$experiment" "${@:2}"
  ;;
down)
  ray stop
  ;;
*)
  echo "usage: bash cluster/local.sh up | submit [EXPERIMENT] [--set KEY=VALUE ...] | down" >&2
  exit 2
  ;;
esac
