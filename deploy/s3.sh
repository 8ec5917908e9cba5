#!/bin/sh
# Starts versitygw on a folder, with the bucket and with the credentials that comfyd uses, in AWS's format.
set -eu
value() { sed -n "s/^ *$1 *= *//p" "$S3_CREDENTIALS_FILE"; }
ROOT_ACCESS_KEY_ID=$(value aws_access_key_id)
ROOT_SECRET_ACCESS_KEY=$(value aws_secret_access_key)
export ROOT_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY
mkdir -p "$S3_FOLDER/$S3_BUCKET"
exec versitygw posix "$S3_FOLDER"
