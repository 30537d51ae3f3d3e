//! The decisions: plain functions over plain values. Nothing in here does I/O, reads a clock or a
//! random source, or knows TOML.

pub mod access;
pub mod admit;
pub mod assertion;
pub mod binding;
pub mod certificate;
pub mod chain;
pub mod client;
pub mod cookie;
pub mod csrf;
pub mod dbsc;
pub mod glob;
pub mod guess;
pub mod headers;
pub mod health;
pub mod hint;
pub mod keys;
pub mod lifecycle;
pub mod location;
pub mod login;
pub mod logout;
pub mod message;
pub mod path;
pub mod relax;
pub mod route;
pub mod session;
pub mod site;
pub mod throttle;
pub mod trailers;
pub mod vault;
pub mod websocket;
