//! `stack` with another allocator. To compare the two in one run, give this program to `stack` as
//! `--other`.

#[path = "main.rs"]
mod stack;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use stack::*;

fn main() -> Result<std::process::ExitCode, tower::BoxError> {
    stack::main()
}
