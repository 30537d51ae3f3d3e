//! The time of an answer that does not say its own (RFC 9110 6.6.1).

use std::cell::RefCell;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::clock::Timestamp;

/// An IMF-fixdate (RFC 9110 5.6.7).
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

thread_local! {
    /// The second that was written last, and how.
    static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Writes this time.
pub(super) fn write(lines: &mut Vec<u8>, now: Timestamp) {
    let second = now.as_secs();
    WRITTEN.with_borrow_mut(|(written, date)| {
        if *written != second {
            *written = second;
            let now = OffsetDateTime::from_unix_timestamp(second.cast_signed());
            *date = now.ok().and_then(|now| now.format(FORMAT).ok()).unwrap_or_default();
        }
        lines.extend_from_slice(date.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_date_as_http_has_it() {
        for (millis, date) in [(784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"), (0, "Thu, 01 Jan 1970 00:00:00 GMT")]
        {
            let mut line = Vec::new();
            write(&mut line, Timestamp::from_millis(millis));
            assert_eq!(str::from_utf8(&line).unwrap(), date);
        }
    }
}
