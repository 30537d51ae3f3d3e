//! Logs: the subscriber, the access-log entry, audit events.
