#!/usr/bin/env bash
# Finds Chromium, or installs Debian's, and prints its path as the last line. Tests use the page in it, and look at the Temporal UI.
set -euo pipefail
say() { echo "chromium: $*" >&2; }

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then command -v "$name"; exit 0; fi
done
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then say "install Chromium or Chrome"; exit 1; fi
say "installing Debian's package (once, about 90 MB)"
apt-cache show chromium >/dev/null 2>&1 || apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
command -v chromium
