//! May this request pass? The table over route, access and session.
