//! What every request must get: the rules of a session's life, without a network.

pub const ABSOLUTE: u64 = 8 * 60 * 60;
pub const EVERY: u64 = 15 * 60;
pub const GRACE: u64 = 30;
pub const OWNER: usize = 0;
pub const NEAR: usize = 1;
pub const FAR: usize = 2;

/// One login and all that followed from it.
pub struct Chain {
    pub user: &'static str,
    pub born: u64,
    pub seen: u64,
    pub is_ended: bool,
    pub ids: Vec<Id>,
}

pub struct Id {
    pub value: String,
    pub minted: u64,
    pub presented: Option<u64>,
}

/// A chain, and one of its IDs.
pub type Place = (usize, usize);

/// What the model says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    In,
    Out,
    /// And the chain has ended for that.
    Reuse,
}

/// What an answer brings.
pub enum Owed {
    Nothing,
    /// The successor that was minted before.
    Known(String),
    /// One that nobody has seen yet.
    New,
}

pub struct Model {
    pub now: u64,
    pub idle: u64,
    pub chains: Vec<Chain>,
}

impl Model {
    pub fn find(&self, value: &str) -> Option<Place> {
        let id = |chain: &Chain| chain.ids.iter().position(|id| id.value == value);
        self.chains.iter().enumerate().find_map(|(at, chain)| Some((at, id(chain)?)))
    }

    pub fn verdict(&self, (chain, id): Place, from: usize) -> Verdict {
        let chain = &self.chains[chain];
        let is_over = self.now >= chain.born + ABSOLUTE || self.now >= chain.seen + self.idle;
        let is_retired = |later: &Id| later.presented.is_some_and(|since| self.now >= since + GRACE);
        if chain.is_ended || is_over {
            Verdict::Out
        } else if chain.ids[id + 1..].iter().any(is_retired) {
            Verdict::Reuse
        } else if from == FAR {
            Verdict::Out
        } else {
            Verdict::In
        }
    }

    /// What follows from a request of this ID.
    pub fn present(&mut self, place: Place, from: usize) -> Verdict {
        let (verdict, now) = (self.verdict(place, from), self.now);
        let chain = &mut self.chains[place.0];
        match verdict {
            Verdict::In => {
                chain.seen = now;
                chain.ids[place.1].presented.get_or_insert(now);
            }
            Verdict::Reuse => chain.is_ended = true,
            Verdict::Out => {}
        }
        verdict
    }

    /// Whether an answer that leaves now must bring a new ID.
    pub fn owes(&self, (chain, id): Place) -> Owed {
        let chain = &self.chains[chain];
        let is_over = self.now >= chain.born + ABSOLUTE || self.now >= chain.seen + self.idle;
        if chain.is_ended || is_over {
            return Owed::Nothing;
        }
        let current = &chain.ids[id];
        let in_grace = id > 0 && current.presented.is_some_and(|since| self.now < since + GRACE);
        match chain.ids.get(id + 1) {
            Some(next) if next.presented.is_none() => Owed::Known(next.value.clone()),
            None if !in_grace && self.now >= current.minted + EVERY => Owed::New,
            Some(_) | None => Owed::Nothing,
        }
    }

    /// Whether the ID in use is so old that any answer brings the next one.
    pub fn is_overdue(&self, chain: usize) -> bool {
        let ids = &self.chains[chain].ids;
        let current = ids.iter().rev().find(|id| id.presented.is_some()).unwrap_or(&ids[0]);
        self.now >= current.minted + 2 * EVERY
    }

    /// What was handed out is what it must be; the model knows it from now on.
    pub fn handed(&mut self, place: Place, handed: Option<&str>) {
        match (self.owes(place), handed) {
            (Owed::Nothing, None) => {}
            (Owed::New, Some(new)) => {
                let ids = &mut self.chains[place.0].ids;
                assert!(new[..21] == ids[0].value[..21] && ids.iter().all(|id| id.value != new), "no successor");
                ids.push(Id { value: new.to_owned(), minted: self.now, presented: None });
            }
            (Owed::Known(owed), Some(new)) => assert!(new == owed, "a chain forked"),
            (Owed::Known(_) | Owed::New, None) => panic!("a new ID is due and does not come"),
            (Owed::Nothing, Some(_)) => panic!("a new ID comes that is not due"),
        }
    }
}
