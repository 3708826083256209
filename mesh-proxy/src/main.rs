//! The mesh sidecar as a program. All of it is in the library.

mod allocator;

use std::process::ExitCode;

/// A tenth of a request's time is allocation with the system's allocator; idle connections own too little for
/// this one's larger blocks to matter.
#[global_allocator]
static ALLOCATOR: allocator::Mimalloc = allocator::Mimalloc;

fn main() -> ExitCode {
    mesh_proxy::main(std::env::args_os())
}
