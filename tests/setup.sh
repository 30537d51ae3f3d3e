#!/usr/bin/env bash
# Installs what the tests need and the machine lacks. Says what to install where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."

# A program, and the Debian package that has it.
needed="
curl:curl
openssl:openssl
"

packages=()
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done

if [ "${#packages[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "The tests need these Debian packages, or what is like them here: ${packages[*]}" >&2
        exit 1
    fi
    sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    echo "Installing ${packages[*]}"
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
