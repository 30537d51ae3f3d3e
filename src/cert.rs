//! `vestibule cert`: a local authority and certificate for development.
