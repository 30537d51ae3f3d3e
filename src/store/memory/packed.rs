//! A session as the memory keeps it: one piece of bytes of about a hundred, from which a record is made anew
//! whenever somebody asks for it. The time that changes most often stands in front and is changed in place.

use std::net::IpAddr;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::policy::binding::Binding;
use crate::policy::chain::Chain;
use crate::policy::chain::Turn;
use crate::policy::dbsc::Device;
use crate::policy::session::Identity;
use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::session::UserName;
use crate::policy::vault::Vault;
use crate::store::memory::texts::TextId;
use crate::store::memory::texts::Texts;
use crate::store::sealed;
use crate::store::sealed::Sealed;
use crate::store::sealed::SealedCookie;

const TIME: usize = size_of::<u64>();
const HEAD: usize = TIME + size_of::<SessionKey>();

/// Everything but the key, and the time: of the last activity, or of the end that left a tombstone.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Packed<'a> {
    /// Ended by login or logout.
    Tombstone,
    /// A session that somebody has begun here, or whose selector was presented here.
    #[serde(borrow)]
    Open(Open<'a>),
    /// As it was read from a store outside the process; nobody has presented its selector yet.
    #[serde(borrow)]
    Sealed(Closed<'a>),
}

/// What lists, indexes and limits go by: in front, so that the rest need not be read.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Limits<'a> {
    pub(super) site: TextId,
    pub(super) user: Option<&'a str>,
    pub(super) created: Timestamp,
    /// The absolute end.
    end: Since,
}

/// A time, as milliseconds since another one, which take fewer bytes than since 1970.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Since(i64);

impl Since {
    fn of(time: Timestamp, base: Timestamp) -> Self {
        Self(time.as_millis().wrapping_sub(base.as_millis()).cast_signed())
    }

    fn on(self, base: Timestamp) -> Timestamp {
        Timestamp::from_millis(base.as_millis().wrapping_add_signed(self.0))
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Open<'a> {
    #[serde(borrow)]
    limits: Limits<'a>,
    authenticated: Since,
    #[serde(borrow)]
    chain: Links<'a>,
    client: Client,
    pub(super) revision: u64,
    vault: &'a [u8],
    /// The secret, and whether the session is bound to it.
    device: Option<(&'a [u8], bool)>,
}

/// What a session or an ID is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Client {
    address: IpAddr,
    user_agent: Option<TextId>,
}

/// Who holds the newest ID of a chain: mostly the client that began the session.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Holder {
    Nobody,
    Creator,
    Another(Client),
}

/// A chain; its times are counted from when the session was created.
#[derive(Clone, Serialize, Deserialize)]
struct Links<'a> {
    current: &'a [u8],
    minted: Since,
    turn: Step<'a>,
    holder: Holder,
}

#[derive(Clone, Serialize, Deserialize)]
enum Step<'a> {
    Steady,
    Offered { successor: &'a [u8], sealed: &'a [u8], minted: Since, shared: bool },
    Confirmed { predecessor: &'a [u8], at: Since },
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Closed<'a> {
    #[serde(borrow)]
    limits: Limits<'a>,
    readable: &'a [u8],
    identity: Option<&'a [u8]>,
    chain: &'a [u8],
    #[serde(borrow)]
    cookies: Vec<([u8; 16], &'a [u8])>,
    revision: u64,
}

/// The key of a piece.
pub(super) fn key(piece: &[u8]) -> SessionKey {
    let mut key = SessionKey([0; size_of::<SessionKey>()]);
    key.0.copy_from_slice(&piece[TIME..HEAD]);
    key
}

/// Whether a piece has this key.
pub(super) fn has_key(piece: &[u8], key: &SessionKey) -> bool {
    piece[TIME..HEAD] == key.0
}

/// The time of a piece.
pub(super) fn time(piece: &[u8]) -> Timestamp {
    Timestamp::from_millis(piece.first_chunk().map_or(0, |time| u64::from_le_bytes(*time)))
}

/// Changes the time of a piece.
pub(super) fn set_time(piece: &mut [u8], time: Timestamp) {
    piece[..TIME].copy_from_slice(&time.as_millis().to_le_bytes());
}

/// All that is in a piece; `None` never happens, since they are written here.
pub(super) fn read(piece: &[u8]) -> Option<Packed<'_>> {
    // Behind it there may be a few bytes more.
    postcard::take_from_bytes(&piece[HEAD..]).ok().map(|(packed, _)| packed)
}

/// What a session's limits are judged by; `None` for a tombstone.
pub(super) fn limits(piece: &[u8]) -> Option<Limits<'_>> {
    // As the variants are written: a number, then what is in them.
    let (variant, rest) = piece[HEAD..].split_first()?;
    (*variant != 0).then(|| postcard::take_from_bytes(rest).ok())?.map(|(limits, _)| limits)
}

/// A piece of bytes.
pub(super) fn write(key: &SessionKey, time: Timestamp, packed: &Packed<'_>) -> Vec<u8> {
    let mut piece = Vec::with_capacity(256);
    piece.extend(time.as_millis().to_le_bytes());
    piece.extend(key.0);
    // Nothing in it is of a kind that cannot be written.
    postcard::to_extend(packed, piece).unwrap_or_default()
}

/// A session as a piece of bytes; its texts are entered.
pub(super) fn write_record(key: &SessionKey, record: &Record, texts: &mut Texts) -> Vec<u8> {
    let identity = record.identity.as_ref();
    let client = Client::enter(&record.binding, texts);
    let limits = Limits {
        site: texts.enter(&record.site),
        user: identity.map(|identity| identity.user.as_str()),
        created: record.created,
        end: Since::of(record.absolute_end, record.created),
    };
    let open = Open {
        limits,
        authenticated: Since::of(identity.map_or(record.created, |who| who.authenticated), record.created),
        chain: Links::enter(&record.chain, record.created, client, texts),
        client,
        revision: record.revision,
        vault: record.vault.as_bytes(),
        device: record.device.as_ref().map(|device| (&device.secret()[..], device.is_bound())),
    };
    write(key, record.seen, &Packed::Open(open))
}

/// A sealed session as a piece of bytes; its texts are entered.
pub(super) fn write_sealed(key: &SessionKey, outline: &Outline, stored: &Sealed, texts: &mut Texts) -> Vec<u8> {
    let limits = Limits {
        site: texts.enter(&outline.site),
        user: outline.user.as_ref().map(UserName::as_str),
        created: outline.created,
        end: Since::of(outline.absolute_end, outline.created),
    };
    let closed = Closed {
        limits,
        readable: &stored.readable,
        identity: stored.identity.as_deref(),
        chain: &stored.chain,
        cookies: stored.cookies.iter().map(|cookie| (cookie.field, cookie.sealed.as_slice())).collect(),
        revision: stored.revision,
    };
    write(key, stored.seen, &Packed::Sealed(closed))
}

impl Limits<'_> {
    pub(super) fn life(&self, seen: Timestamp) -> Life {
        Life { authenticated: self.user.is_some(), seen, absolute_end: self.end.on(self.created) }
    }
}

impl<'a> Open<'a> {
    /// The session that it is; `None` never happens.
    pub(super) fn record(&self, piece: &[u8], texts: &Texts) -> Option<Record> {
        let limits = &self.limits;
        let identity = limits.user.map(|user| Identity {
            user: UserName::kept(user),
            authenticated: self.authenticated.on(limits.created),
            session_ref: key(piece).session_ref(),
        });
        let device = match self.device {
            Some((secret, is_bound)) => Some(Box::new(Device::kept(secret.try_into().ok()?, is_bound))),
            None => None,
        };
        Some(Record {
            site: texts.get(limits.site)?.clone(),
            identity,
            created: limits.created,
            seen: time(piece),
            absolute_end: limits.end.on(limits.created),
            chain: self.chain.chain(limits.created, self.client, texts)?,
            binding: self.client.binding(texts),
            vault: self.vault(),
            device,
            revision: self.revision,
        })
    }

    pub(super) fn vault(&self) -> Vault {
        Vault::from_bytes(self.vault)
    }

    /// The same with another vault.
    pub(super) fn with_vault(self, vault: &'a Vault) -> Self {
        Self { vault: vault.as_bytes(), ..self }
    }

    /// The same, bound to its device; `None` when there is none.
    pub(super) fn bound(self) -> Option<Self> {
        let (secret, _) = self.device?;
        Some(Self { device: Some((secret, true)), ..self })
    }

    /// The same with another chain.
    pub(super) fn with_chain(self, chain: &'a Chain, texts: &mut Texts) -> Self {
        self.chain.holder.leave(texts);
        let chain = Links::enter(chain, self.limits.created, self.client, texts);
        Self { chain, revision: self.revision + 1, ..self }
    }
}

impl Client {
    fn enter(binding: &Binding, texts: &mut Texts) -> Self {
        let user_agent = binding.user_agent.as_ref().map(|text| texts.enter(text));
        Self { address: binding.address, user_agent }
    }

    fn binding(self, texts: &Texts) -> Binding {
        let user_agent = self.user_agent.and_then(|text| texts.get(text)).cloned();
        Binding { address: self.address, user_agent }
    }

    fn leave(self, texts: &mut Texts) {
        if let Some(user_agent) = self.user_agent {
            texts.leave(user_agent);
        }
    }
}

impl Holder {
    fn enter(holder: Option<&Binding>, creator: Client, texts: &mut Texts) -> Self {
        let Some(holder) = holder else { return Self::Nobody };
        let client = Client::enter(holder, texts);
        if client != creator {
            return Self::Another(client);
        }
        client.leave(texts);
        Self::Creator
    }

    fn binding(self, creator: Client, texts: &Texts) -> Option<Binding> {
        match self {
            Self::Nobody => None,
            Self::Creator => Some(creator.binding(texts)),
            Self::Another(client) => Some(client.binding(texts)),
        }
    }

    fn leave(self, texts: &mut Texts) {
        match self {
            Self::Nobody | Self::Creator => {}
            Self::Another(client) => client.leave(texts),
        }
    }
}

impl<'a> Links<'a> {
    fn enter(chain: &'a Chain, base: Timestamp, creator: Client, texts: &mut Texts) -> Self {
        let turn = match &chain.turn {
            Turn::Steady => Step::Steady,
            Turn::Offered { successor, sealed, minted, shared } => {
                Step::Offered { successor, sealed, minted: Since::of(*minted, base), shared: *shared }
            }
            Turn::Confirmed { predecessor, at } => Step::Confirmed { predecessor, at: Since::of(*at, base) },
        };
        let holder = Holder::enter(chain.holder.as_ref(), creator, texts);
        Self { current: &chain.current, minted: Since::of(chain.minted, base), turn, holder }
    }

    fn chain(&self, base: Timestamp, creator: Client, texts: &Texts) -> Option<Chain> {
        let turn = match &self.turn {
            Step::Steady => Turn::Steady,
            Step::Offered { successor, sealed, minted, shared } => Turn::Offered {
                successor: (*successor).try_into().ok()?,
                sealed: (*sealed).try_into().ok()?,
                minted: minted.on(base),
                shared: *shared,
            },
            Step::Confirmed { predecessor, at } => {
                Turn::Confirmed { predecessor: (*predecessor).try_into().ok()?, at: at.on(base) }
            }
        };
        let holder = self.holder.binding(creator, texts);
        Some(Chain { current: self.current.try_into().ok()?, minted: self.minted.on(base), holder, turn })
    }
}

impl Closed<'_> {
    /// The sealed session that it is.
    pub(super) fn sealed(&self, seen: Timestamp) -> Sealed {
        let cookie = |(field, sealed): &([u8; 16], &[u8])| SealedCookie { field: *field, sealed: sealed.to_vec() };
        Sealed {
            readable: self.readable.to_vec(),
            identity: self.identity.map(<[u8]>::to_vec),
            chain: self.chain.to_vec(),
            cookies: self.cookies.iter().map(cookie).collect(),
            revision: self.revision,
            seen,
        }
    }
}

impl Packed<'_> {
    /// How often its chain has changed.
    pub(super) fn revision(&self) -> u64 {
        match self {
            Self::Tombstone => 0,
            Self::Open(open) => open.revision,
            Self::Sealed(closed) => closed.revision,
        }
    }

    /// What needs no secret; `None` for a tombstone.
    pub(super) fn outline(&self, piece: &[u8], texts: &Texts) -> Option<Outline> {
        match self {
            Self::Tombstone => None,
            Self::Open(open) => Some(open.record(piece, texts)?.outline()),
            Self::Sealed(closed) => sealed::read_outline(closed.readable, time(piece)).ok(),
        }
    }

    /// Says that its texts are used once less.
    pub(super) fn leave(&self, texts: &mut Texts) {
        match self {
            Self::Tombstone => {}
            Self::Open(open) => {
                texts.leave(open.limits.site);
                open.client.leave(texts);
                open.chain.holder.leave(texts);
            }
            Self::Sealed(closed) => texts.leave(closed.limits.site),
        }
    }
}
