//! Integration tests: the whole program, real sockets.
