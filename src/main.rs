//! The `tracker` program: hands the arguments to [`tracker::cli`] and turns its answer into an exit code.

use std::process::ExitCode;

/// The allocator: request handling allocates many short-lived buffers from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tracker::cli::run(
        std::env::args_os(),
        &std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
    ) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
