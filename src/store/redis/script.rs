//! What changes a record does so in one step on the server, on that one key: a cluster runs it as well.
//!
//! A record is a hash: `k` its key, `o` the readable part, `i` the identity and its device, `c` the chain, `r` its
//! revision, `w` the version of the vault, `v` and 16 bytes for each cookie, `s` last activity, `e` the
//! absolute end, `d` how long it may idle, `n` who made it. A tombstone has `x`: since when.

use std::sync::LazyLock;

use redis::Cmd;

/// How long a record outlives its limits, for the sweep to say that it has ended (milliseconds).
pub(super) const MARGIN: u64 = 60_000;

/// What is answered in place of a number when there is no record.
pub(super) const GONE: i64 = -1;

/// A script, and what the server knows it by.
pub(super) struct Script {
    pub(super) text: &'static str,
    digest: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $text:expr) => {
        pub(super) static $name: Script = Script { text: $text, digest: LazyLock::new(|| digest($text)) };
    };
}

fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Script {
    /// What the server knows it by.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Calls it by its digest.
    pub(super) fn on(&self, key: &[u8]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.digest()).arg(1).arg(key);
        command
    }
}

// ARGV: who makes it, time to live, then fields and values. Called again by the same, it says yes again.
script!(
    CREATE,
    "if redis.call('EXISTS', KEYS[1]) == 1 then
       if redis.call('HGET', KEYS[1], 'n') == ARGV[1] then return 1 end
       return 0
     end
     redis.call('HSET', KEYS[1], 'n', ARGV[1])
     for at = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
     redis.call('PEXPIRE', KEYS[1], ARGV[2])
     return 1"
);

// What keeps a session alive is allowed to a server that is full (`allow-oom`): it puts new values in the
// place of old ones.

// ARGV: the first activity that is to be noted, the last one, how long it may idle, the margin.
script!(
    TOUCH,
    "#!lua flags=allow-oom
     local kept = redis.call('HMGET', KEYS[1], 's', 'e')
     if not kept[1] then return 0 end
     local seen, absolute = tonumber(kept[1]), tonumber(kept[2])
     local first, last, idle = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
     if first - seen >= idle or last >= absolute then return 0 end
     if last > seen then
       redis.call('HSET', KEYS[1], 's', ARGV[2], 'd', ARGV[3])
       redis.call('PEXPIRE', KEYS[1], math.min(idle, absolute - last) + tonumber(ARGV[4]))
     end
     return 1"
);

// ARGV: the revision that is expected, the chain.
script!(
    SWAP,
    "#!lua flags=allow-oom
     local revision = redis.call('HGET', KEYS[1], 'r')
     if not revision then return -1 end
     if revision ~= ARGV[1] then return 0 end
     redis.call('HSET', KEYS[1], 'c', ARGV[2])
     redis.call('HINCRBY', KEYS[1], 'r', 1)
     return 1"
);

// ARGV: the sealed identity that is expected, the one that takes its place.
script!(
    BIND,
    "#!lua flags=allow-oom
     if redis.call('HGET', KEYS[1], 'i') ~= ARGV[1] then return 0 end
     redis.call('HSET', KEYS[1], 'i', ARGV[2])
     return 1"
);

// ARGV: the version of the vault that is expected, how many fields go, those, then fields and values.
script!(
    VAULT,
    "local version = redis.call('HGET', KEYS[1], 'w')
     if not version then return -1 end
     if version ~= ARGV[1] then return 0 end
     local gone = tonumber(ARGV[2])
     for at = 3, 2 + gone do redis.call('HDEL', KEYS[1], ARGV[at]) end
     for at = 3 + gone, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
     redis.call('HINCRBY', KEYS[1], 'w', 1)
     return 1"
);

// What ends a record leaves for a minute who has ended it (`q`) and what it was (`z`): whoever has not heard
// the answer, and asks again, is told again.

// ARGV: who ends it, since when there is a tombstone, empty for none; how long that stands; the revision that is
// expected, empty for any.
script!(
    END,
    "#!lua flags=allow-oom
     if redis.call('HGET', KEYS[1], 'q') == ARGV[1] then return cmsgpack.unpack(redis.call('HGET', KEYS[1], 'z')) end
     local revision = redis.call('HGET', KEYS[1], 'r')
     if not revision then return {} end
     if ARGV[4] ~= '' and revision ~= ARGV[4] then return 0 end
     local kept = redis.call('HGETALL', KEYS[1])
     redis.call('DEL', KEYS[1])
     redis.call('HSET', KEYS[1], 'q', ARGV[1], 'z', cmsgpack.pack(kept))
     if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'x', ARGV[2]) end
     redis.call('PEXPIRE', KEYS[1], ARGV[3])
     return kept"
);

// ARGV: who ends it, how long that is known, the last activity that was judged.
script!(
    REAP,
    "#!lua flags=allow-oom
     if redis.call('HGET', KEYS[1], 'q') == ARGV[1] then return 1 end
     if redis.call('HGET', KEYS[1], 's') ~= ARGV[3] then return 0 end
     redis.call('DEL', KEYS[1])
     redis.call('HSET', KEYS[1], 'q', ARGV[1])
     redis.call('PEXPIRE', KEYS[1], ARGV[2])
     return 1"
);

// ARGV: who has ended it, and been told.
script!(
    TOLD,
    "if redis.call('HGET', KEYS[1], 'q') ~= ARGV[1] then return 0 end
     if redis.call('HEXISTS', KEYS[1], 'x') == 0 then return redis.call('DEL', KEYS[1]) end
     return redis.call('HDEL', KEYS[1], 'q', 'z')"
);

// On the index of a user. ARGV: the key of a session, its absolute end, now, milliseconds between them.
script!(
    INDEX,
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
     redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
     if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
     return 1"
);

// On the index of a site. ARGV: the key of a session, when it is worth another look.
script!(
    LATER,
    "#!lua flags=allow-oom
     return redis.call('ZADD', KEYS[1], 'XX', ARGV[2], ARGV[1])"
);

// On any index. ARGV: a command that reads what should be there. Takes away what it cannot read.
script!(
    CLEAR,
    "#!lua flags=allow-oom
     local kept = redis.pcall(ARGV[1], KEYS[1])
     if type(kept) == 'table' and kept.err and string.find(kept.err, 'WRONGTYPE', 1, true) then
       return redis.call('DEL', KEYS[1])
     end
     return 0"
);

// On a value of the shelf: `w` its version, `v` its bytes. ARGV: the new version, the bytes, time to live. Called
// again by the same, it says yes again.
script!(
    SHELVE,
    "local version = redis.call('HGET', KEYS[1], 'w')
     if version and version ~= ARGV[1] then return 0 end
     redis.call('HSET', KEYS[1], 'w', ARGV[1], 'v', ARGV[2])
     redis.call('PEXPIRE', KEYS[1], ARGV[3])
     return 1"
);

// The same in the place of another value. ARGV: as before, and the version that is expected.
script!(
    REPLACE,
    "#!lua flags=allow-oom
     local version = redis.call('HGET', KEYS[1], 'w')
     if not version then return -1 end
     if version == ARGV[1] then return 1 end
     if version ~= ARGV[4] then return 0 end
     redis.call('HSET', KEYS[1], 'w', ARGV[1], 'v', ARGV[2])
     redis.call('PEXPIRE', KEYS[1], ARGV[3])
     return 1"
);

/// All of them, for a connection to announce.
pub(super) static ALL: [&Script; 13] =
    [&CREATE, &TOUCH, &SWAP, &BIND, &VAULT, &END, &REAP, &TOLD, &INDEX, &LATER, &CLEAR, &SHELVE, &REPLACE];
