# What each node's Ray is started with; to be sourced:  . ~/fdd_ray/cluster/environment.sh
#
# Ray's workers inherit it, so this is how the teacher's key reaches the engines and the storage's credentials the
# stages: through ~/.fdd_ray.env, lines of NAME=value, copied by `ray up` from the same place of your computer.
. "$HOME/venv/bin/activate"
export RAY_AUTH_MODE=token # the token itself is in ~/.ray/auth_token
export RAY_JOB_STOP_WAIT_TIME_S=60 # `ray job stop` lets the rows in flight finish (flow.grace_s); Ray gives 3 s
if [ -r "$HOME/.fdd_ray.env" ]; then
  set -a
  . "$HOME/.fdd_ray.env"
  set +a
fi
