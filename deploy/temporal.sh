#!/bin/sh
# Starts the Temporal server of its image with the database password from a file, which the server cannot read by itself.
set -eu
POSTGRES_PWD=$(cat "$POSTGRES_PWD_FILE")
export POSTGRES_PWD
if [ "$BIND_ON_IP" = 0.0.0.0 ]; then # the others of the cluster need an address to call back
  TEMPORAL_BROADCAST_ADDRESS=$(hostname -i | cut -d' ' -f1)
  export TEMPORAL_BROADCAST_ADDRESS
fi
exec temporal-server --allow-no-auth start
