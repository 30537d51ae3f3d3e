//! Values in plain words.

use std::time::Duration;

pub(super) fn join<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> String {
    texts.map(|text| text.as_ref().to_owned()).collect::<Vec<_>>().join(", ")
}

/// `1 warning`, `2 warnings`
pub(super) fn count(number: u128, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// In the largest unit that divides it: `15 minutes`.
pub(super) fn time(duration: Duration) -> String {
    let units = [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000), ("millisecond", 1)];
    let (number, unit) = in_largest(duration.as_millis(), &units);
    count(number, unit)
}

/// As in the file: `15m`.
pub(in crate::config) fn short(duration: Duration) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (number, unit) = in_largest(duration.as_millis(), &units);
    format!("{number}{unit}")
}

/// As in the file, with a space: `64 KiB`.
pub(super) fn size(bytes: u64) -> String {
    let (number, unit) =
        in_largest(bytes.into(), &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("bytes", 1)]);
    format!("{number} {unit}")
}

fn in_largest(amount: u128, units: &[(&'static str, u128)]) -> (u128, &'static str) {
    let fits = units.iter().find(|(_, size)| amount >= *size && amount.is_multiple_of(*size));
    fits.or_else(|| units.last()).map_or((amount, ""), |(unit, size)| (amount / size, unit))
}

/// As headers are usually written: `X-Forwarded-User`.
pub(in crate::config) fn title(name: &http::HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word.split_at_checked(1) {
        Some((first, rest)) => format!("{}{rest}", first.to_ascii_uppercase()),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join("-")
}
