//! The names of fields, which are nearly always those of the answer before.

use http::HeaderName;
use http::header::InvalidHeaderName;

/// So many are remembered, if they are no longer than this.
const MOST: usize = 24;
const LONGEST: usize = 31;

/// The names that came last on one connection, in their order. An application spells them the same way each time,
/// and so they need not be judged again.
#[derive(Default)]
pub(super) struct Names(Vec<Known>);

struct Known {
    /// As it came, in so many bytes.
    spelled: [u8; LONGEST],
    length: u8,
    name: HeaderName,
}

impl Names {
    /// The name of the field at this place in its head.
    ///
    /// # Errors
    /// When it is none (RFC 9110 5.1).
    pub(super) fn at(&mut self, index: usize, spelled: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
        if let Some(known) = self.0.get(index).filter(|known| known.is(spelled)) {
            return Ok(known.name.clone());
        }
        let name = HeaderName::from_bytes(spelled)?;
        if let Some(known) = Known::new(spelled, &name) {
            if let Some(last) = self.0.get_mut(index) {
                *last = known;
            } else if self.0.len() < MOST {
                self.0.push(known);
            }
        }
        Ok(name)
    }
}

impl Known {
    fn new(spelled: &[u8], name: &HeaderName) -> Option<Self> {
        let mut copy = [0; LONGEST];
        copy.get_mut(..spelled.len())?.copy_from_slice(spelled);
        Some(Self { spelled: copy, length: u8::try_from(spelled.len()).ok()?, name: name.clone() })
    }

    fn is(&self, spelled: &[u8]) -> bool {
        self.spelled.get(..usize::from(self.length)) == Some(spelled)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const SPELLED: [&str; 9] =
        ["Date", "date", "Server", "X-Own", "X-Own-", "X-Of-Thirty-One-Bytes-And-No-More", "X-0f-31", "a b", ""];

    proptest! {
        #[test]
        fn a_name_is_what_it_is_whatever_came_before(heads in prop::collection::vec(prop::collection::vec(select(&SPELLED), 0..30), 1..6)) {
            let mut names = Names::default();
            for head in heads {
                for (index, spelled) in head.into_iter().enumerate() {
                    let expected = HeaderName::from_bytes(spelled.as_bytes()).ok();
                    prop_assert_eq!(names.at(index, spelled.as_bytes()).ok(), expected);
                }
                prop_assert!(names.0.len() <= MOST);
            }
        }
    }
}
