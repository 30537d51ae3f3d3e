#!/usr/bin/env bash
# make release: the program with its code laid out after what it did under load (profile-guided optimization), as
# target/optimized/vestibule. Built once to count what is done how often, loaded with the workloads of
# benches/peers, built again with the counts.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
if [ ! -x "$profdata" ] && ! rustup component add llvm-tools; then
    echo "benches/release.sh: llvm-profdata of this rustc is missing; install it with: rustup component add llvm-tools" >&2
    exit 1
fi

# gcc 12, tuned for x86-64 in general, clears and copies a few hundred bytes by an instruction that takes longer to
# begin than to end (rep stos, rep movs); aws-lc does so for each record of TLS. Tuned for Skylake it stores them
# directly or calls the C library. That changes no instruction set: the program runs on all.
tuned=
case $host in
    x86_64-*) tuned=-mtune=skylake ;;
esac

counts=$PWD/target/optimized/counts
rm -rf "$counts"
mkdir -p "$counts"

# Named by its target, or what runs during the build would count as well.
build() {
    RUSTFLAGS="$1" CFLAGS="$tuned ${CFLAGS:-}" "$cargo" build --locked --release --bin vestibule --target "$host" --target-dir target/optimized
}
built=$PWD/target/optimized/$host/release/vestibule

build "-Cprofile-generate=$counts"
VESTIBULE=$built "$cargo" bench --locked --profile dev --bench peers -- 1 "" vestibule
"$profdata" merge -o "$counts/merged.profdata" "$counts"/*.profraw
build "-Cprofile-use=$counts/merged.profdata"
cp "$built" target/optimized/vestibule
echo "target/optimized/vestibule: $(target/optimized/vestibule --version)"
