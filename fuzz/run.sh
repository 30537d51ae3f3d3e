#!/usr/bin/env bash
# Fuzzes each target for so many seconds, on one core and in bounded memory. Without a sanitizer: there is no
# unsafe code to look into.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in cookies logins paths requests answers codec; do
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run --release --debug-assertions --sanitizer none "$target" "fuzz/corpus/$target" "tests/corpus/$target" -- \
        -max_total_time="$seconds" -dict="fuzz/dictionaries/$target.dict" -max_len=2048 -timeout=10 -rss_limit_mb=2048
done
