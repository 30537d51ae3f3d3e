//! Integration tests: the whole program, real sockets, one binary.

#![allow(unreachable_pub)] // A test binary has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod access;
mod activity;
mod admin;
mod answers;
mod apps;
mod audit;
mod balancing;
mod binding;
mod bodies;
mod certificates;
mod cli;
mod client_certificates;
mod cookies;
mod corpus;
mod csrf;
mod demo;
mod documents;
mod durable;
mod example;
mod failures;
mod floods;
mod forwarding;
mod headers;
mod hints;
mod http2;
mod http2_upstream;
mod idle;
mod invariants;
mod layers;
mod lifetime;
mod limits;
mod listening;
mod login;
mod login_answers;
mod login_bodies;
mod login_page;
mod login_styles;
mod logout;
mod logs;
mod memory;
mod messages;
mod outages;
mod own;
mod paths;
mod plain;
mod properties;
mod readme;
mod relaxing;
mod rotation;
mod signals;
mod sites;
mod streaming;
#[allow(dead_code, unused_imports)] // The harness is ahead of the tests that use it.
mod support;
mod switching;
mod tls;
mod tunnels;
mod unread;
mod upstreams;
mod vault;
mod websocket;
mod websocket_h2;
