//! The `vestibule` program: a thin shell over the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Pieces of one size lie together: the buffers of new connections take the places of those that left, and a
/// page on which nothing is left goes back to the system.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    vestibule::cli::main()
}
