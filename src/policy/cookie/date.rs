//! Dates as they stand in `Expires`: the lenient algorithm of RFC 6265bis 5.6.1, which accepts
//! every form that was ever in use.

use time::Date;
use time::Month;
use time::Time;

use crate::clock::Timestamp;

/// Reads a cookie date. Times before 1970 become 1970: both are long past. `None` when it lacks a
/// part, or names a day or time that does not exist.
pub fn cookie_date(text: &[u8]) -> Option<Timestamp> {
    let mut time = None;
    let mut day = None;
    let mut month = None;
    let mut year = None;
    for token in text.split(|byte| is_delimiter(*byte)).filter(|token| !token.is_empty()) {
        // The order is the RFC's: a token goes to the first part that is still missing and fits.
        if fill(&mut time, || time_of_day(token))
            || fill(&mut day, || number(token, 1, 2))
            || fill(&mut month, || month_of(token))
        {
            continue;
        }
        fill(&mut year, || number(token, 2, 4));
    }
    let (hour, minute, second) = time?;
    let date = Date::from_calendar_date(full_year(year?)?, month?, u8::try_from(day?).ok()?).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    let seconds = date.with_time(time).assume_utc().unix_timestamp();
    Some(Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)))
}

fn fill<T>(part: &mut Option<T>, read: impl FnOnce() -> Option<T>) -> bool {
    if part.is_some() {
        return false;
    }
    *part = read();
    part.is_some()
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// A number of `least` to `most` digits; what follows it must not be a digit and is ignored.
fn number(token: &[u8], least: usize, most: usize) -> Option<u16> {
    let digits = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(least..=most).contains(&digits) {
        return None;
    }
    Some(token[..digits].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

/// `h:m:s`, each of one or two digits.
fn time_of_day(token: &[u8]) -> Option<(u8, u8, u8)> {
    let mut fields = token.splitn(3, |byte| *byte == b':');
    let mut whole = || fields.next().filter(|field| field.len() <= 2).and_then(|field| number(field, field.len(), 2));
    let (hour, minute) = (whole()?, whole()?);
    let second = number(fields.next()?, 1, 2)?;
    Some((u8::try_from(hour).ok()?, u8::try_from(minute).ok()?, u8::try_from(second).ok()?))
}

fn month_of(token: &[u8]) -> Option<Month> {
    const NAMES: [(&[u8], Month); 12] = [
        (b"jan", Month::January),
        (b"feb", Month::February),
        (b"mar", Month::March),
        (b"apr", Month::April),
        (b"may", Month::May),
        (b"jun", Month::June),
        (b"jul", Month::July),
        (b"aug", Month::August),
        (b"sep", Month::September),
        (b"oct", Month::October),
        (b"nov", Month::November),
        (b"dec", Month::December),
    ];
    let start = token.get(..3)?;
    NAMES.iter().find(|(name, _)| start.eq_ignore_ascii_case(name)).map(|(_, month)| *month)
}

/// Two digits mean 1970 to 2069; nothing before 1601 is a cookie date.
fn full_year(year: u16) -> Option<i32> {
    match year {
        0..=69 => Some(i32::from(year) + 2000),
        70..=99 => Some(i32::from(year) + 1900),
        100..=1600 => None,
        1601.. => Some(i32::from(year)),
    }
}
