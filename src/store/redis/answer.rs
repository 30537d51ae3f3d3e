//! What the server answers, as plain values.

use redis::Value;

use crate::clock::Timestamp;
use crate::store::redis::link::LinkError;

/// Bytes.
pub(super) fn bytes(answer: Value) -> Option<Vec<u8>> {
    if let Value::BulkString(bytes) = answer { Some(bytes) } else { None }
}

/// Members of a list or a set.
pub(super) fn members(answer: Value) -> Option<Vec<Value>> {
    if let Value::Array(members) | Value::Set(members) = answer { Some(members) } else { None }
}

/// A number.
pub(super) fn number(answer: &Value) -> Result<i64, LinkError> {
    if let Value::Int(number) = answer { Ok(*number) } else { Err(LinkError::Odd("there should be a number")) }
}

/// Names and values: a map, or a list of both in turn, which is what scripts make of one.
pub(super) fn pairs(answer: Value) -> Option<Vec<[Vec<u8>; 2]>> {
    if let Value::Map(pairs) = answer {
        return pairs.into_iter().map(|(name, value)| Some([bytes(name)?, bytes(value)?])).collect();
    }
    let mut flat = members(answer)?.into_iter();
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        pairs.push([bytes(name)?, bytes(value)?]);
    }
    Some(pairs)
}

/// A time: seconds, and microseconds.
pub(super) fn millis(parts: &[Value]) -> Option<Timestamp> {
    let number = |part: &Value| {
        if let Value::BulkString(text) = part { std::str::from_utf8(text).ok()?.parse::<u64>().ok() } else { None }
    };
    let [seconds, micros] = parts else { return None };
    Some(Timestamp::from_millis(number(seconds)?.checked_mul(1000)?.checked_add(number(micros)? / 1000)?))
}
