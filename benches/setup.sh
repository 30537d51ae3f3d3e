#!/usr/bin/env bash
# Installs what the benchmarks need and the machine lacks.
set -euo pipefail

packages=()
command -v nginx >/dev/null || packages+=(nginx-light)
command -v haproxy >/dev/null || packages+=(haproxy)
command -v caddy >/dev/null || packages+=(caddy)
command -v h2load >/dev/null || packages+=(nghttp2-client)
command -v redis-server >/dev/null || packages+=(redis-server)
if [ "${#packages[@]}" -gt 0 ]; then
    sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
