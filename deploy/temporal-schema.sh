#!/bin/sh
# Makes Temporal's two databases where they are missing, and brings their schema up to the version of this image. It may be
# repeated: it runs at every start, and migrates after an upgrade.
set -eu
SQL_PASSWORD=$(cat "$SQL_PASSWORD_FILE")
export SQL_PASSWORD
for pair in temporal:temporal temporal_visibility:visibility; do
  database=${pair%%:*}
  schema=postgresql/v12/${pair##*:}
  temporal-sql-tool --quiet --db "$database" create # complains when it is there
  temporal-sql-tool --db "$database" setup-schema -v 0.0
  temporal-sql-tool --db "$database" update-schema --schema-name "$schema"
done
