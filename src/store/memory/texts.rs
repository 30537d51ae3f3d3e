//! Texts that many sessions share: sites, and what browsers call themselves. Each is kept once, for as long
//! as somebody uses it, since clients choose some of them.

use std::collections::HashMap;
use std::sync::Arc;

/// A text that is kept once.
pub(super) type TextId = u32;

struct Text {
    text: Arc<str>,
    uses: u32,
}

/// The texts of one shard. Not those of all: then every login would wait for the same lock, and every
/// request would count its use at the same place in memory.
#[derive(Default)]
pub(super) struct Texts {
    ids: HashMap<Arc<str>, TextId>,
    texts: Vec<Option<Text>>,
    free: Vec<TextId>,
}

impl Texts {
    /// Keeps a text until [`Texts::leave`] was called as often.
    pub(super) fn enter(&mut self, text: &str) -> TextId {
        if let Some(id) = self.ids.get(text).copied() {
            if let Some(known) = self.slot(id) {
                known.uses += 1;
            }
            return id;
        }
        let text: Arc<str> = Arc::from(text);
        let new = Some(Text { text: Arc::clone(&text), uses: 1 });
        let id = match self.free.pop() {
            Some(id) => {
                self.texts[id as usize] = new;
                id
            }
            None => {
                self.texts.push(new);
                // There are no more of them than sessions in a shard, which are fewer.
                TextId::try_from(self.texts.len() - 1).unwrap_or(TextId::MAX)
            }
        };
        self.ids.insert(text, id);
        id
    }

    /// One use less.
    pub(super) fn leave(&mut self, id: TextId) {
        let Some(known) = self.slot(id) else { return };
        known.uses -= 1;
        if known.uses == 0
            && let Some(gone) = self.texts[id as usize].take()
        {
            self.ids.remove(&gone.text);
            self.free.push(id);
        }
    }

    pub(super) fn get(&self, id: TextId) -> Option<&Arc<str>> {
        self.texts.get(id as usize)?.as_ref().map(|known| &known.text)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn slot(&mut self, id: TextId) -> Option<&mut Text> {
        self.texts.get_mut(id as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_as_long_as_it_is_used() {
        let mut texts = Texts::default();
        let (firefox, curl) = (texts.enter("Firefox"), texts.enter("curl"));
        assert_eq!(texts.enter("Firefox"), firefox);
        texts.leave(firefox);
        assert_eq!(texts.get(firefox).map(|text| &**text), Some("Firefox"));
        texts.leave(firefox);
        assert_eq!(texts.get(firefox), None);
        assert_eq!(texts.enter("Chromium"), firefox, "the place is used again");
        assert_eq!(texts.get(curl).map(|text| &**text), Some("curl"));
        assert_eq!(texts.ids.len(), 2);
    }
}
