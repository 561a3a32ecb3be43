//! The `quorate` binary.

use std::process::ExitCode;

use clap::Parser as _;
use quorate::command::{Cli, exit_code, hint};

/// Operations allocate small things on one thread and free them on another, between buffers of a megabyte for the log and
/// the wire. glibc's allocator took a quarter of a node's CPU time under load with that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// With pages of 2 MiB a process takes twice what it uses (127 MiB for 75, measured), and CPU time gains nothing from them.
/// mimalloc is built not to ask for them; some distributions give them unasked. Child processes inherit this.
#[cfg(target_os = "linux")]
fn refuse_huge_pages() {
    // Where the kernel cannot do that, memory is what is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(not(target_os = "linux"))]
fn refuse_huge_pages() {}

fn main() -> ExitCode {
    refuse_huge_pages();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = hint(&error) {
                eprintln!("hint: {hint}");
            }
            exit_code(&error)
        }
    }
}
