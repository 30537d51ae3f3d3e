//! When requests are due.

use std::time::Duration;

/// The same for everybody.
const SEED: u64 = 0x5eed;

/// As from many people who know nothing of each other: a Poisson process of so many a second.
pub fn arrivals(rate: u32, lasts: Duration) -> Vec<Duration> {
    let (mut state, mut at, mut due) = (SEED, 0.0, Vec::new());
    loop {
        at -= uniform(&mut state).ln() / f64::from(rate);
        if at >= lasts.as_secs_f64() {
            return due;
        }
        due.push(Duration::from_secs_f64(at));
    }
}

/// Above 0, up to 1 (splitmix64).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
}
