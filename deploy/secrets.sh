#!/bin/sh
# Makes the secrets of docker-compose.yml in the folder deploy/secrets, or in the one named; those that are there stay.
# The folder is private to its owner. The files are readable by all, because each container reads its own as another user.
set -eu
dir=${1:-$(dirname "$0")/secrets}
mkdir -p "$dir"
chmod 700 "$dir"
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # keep NAME: standard input becomes the secret, unless there is one
  if [ -s "$dir/$1" ]; then return; fi
  cat >"$dir/$1.new"
  chmod 444 "$dir/$1.new"
  mv "$dir/$1.new" "$dir/$1"
  echo "made $dir/$1"
}
random | keep postgres_password
random | keep signing_key
random | keep grafana_password # for docker compose --profile monitoring
echo "default:$(random)" | keep api_keys
printf '[default]\naws_access_key_id = comfyd\naws_secret_access_key = %s\n' "$(random)" | keep s3_credentials
if [ ! -e "$dir/modal" ]; then : >"$dir/modal"; fi # for COMFYD_BACKEND=modal: put a copy of ~/.modal.toml there
chmod 444 "$dir/modal"
