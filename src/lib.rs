//! Vestibule: a TLS-terminating, authenticating reverse proxy in front of a legacy web application
//! that has its own login form and cannot be changed.
//!
//! Two halves and one seam:
//!
//! - [`policy`] *decides*: plain functions over plain values. No socket, no file, no clock, no
//!   randomness, no TOML. `now` is a parameter.
//! - the shell ([`server`], [`proxy`], [`store`], [`admin`]) does I/O and decides nothing.
//! - one pipeline function (`proxy::Worker::exchange`) calls both in turn and is the description of
//!   the program; its order is the security argument.
//!
//! `docs/architecture.md` tells the story of one request and says where to add things. Invariants,
//! kept by `tests/it/layers.rs`:
//!
//! - only [`config`] knows TOML,
//! - [`policy`] knows no I/O,
//! - [`store`] knows no HTTP.

pub mod admin;
pub mod app;
pub mod cert;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod demo;
pub mod http1;
pub mod metrics;
pub mod policy;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod signing;
pub mod store;
pub mod telemetry;
mod write;
