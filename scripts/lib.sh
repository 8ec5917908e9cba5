# Shared by the scripts here; sourced, not run.

# cached NAME prints the folder NAME among the tools that scripts prepare.
cached() { echo "${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}/$1"; }

# once DIR COMMAND...: has COMMAND fill DIR, unless that was done before.
once() {
  if [ -f "$1/.complete" ]; then return; fi
  mkdir -p "$(dirname "$1")"
  exec 9>"$1.lock"
  flock 9 2>/dev/null || true # two clones may prepare it at the same time; macOS has no flock
  if [ ! -f "$1/.complete" ]; then
    rm -rf "$1"
    mkdir "$1"
    "${@:2}"
    touch "$1/.complete"
  fi
  exec 9>&-
}

# python_env DIR PACKAGE...: a Python environment with packages.
python_env() {
  python3 -m venv "$1" || { echo "python3 with venv is needed (Debian: apt-get install python3-venv)" >&2; exit 1; }
  "$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
}

# free_port prints a TCP port that nothing listens on.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for URL SECONDS PID: until URL answers, the seconds pass or the process ends.
wait_for() {
  local end=$((SECONDS + $2))
  until curl -fsS -o /dev/null --max-time 5 "$1" 2>/dev/null; do
    kill -0 "$3" 2>/dev/null || return 1
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# start_comfyui DIR PORT WORK: a ComfyUI on the CPU with folders of its own; sets comfyui_pid.
start_comfyui() {
  mkdir -p "$3"/{input,output,temp,user}
  "$1/.venv/bin/python" "$1/main.py" --cpu --listen 127.0.0.1 --port "$2" --disable-auto-launch \
    --input-directory "$3/input" --output-directory "$3/output" --temp-directory "$3" --user-directory "$3/user" \
    >"$3/log" 2>&1 &
  comfyui_pid=$!
}
