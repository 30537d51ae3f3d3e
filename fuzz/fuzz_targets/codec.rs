#![no_main]
#![allow(dead_code, unreachable_pub)] // Each target uses one of the invariants.

#[path = "../../tests/it/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|data: &[u8]| invariants::codec::check(data));
