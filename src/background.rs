//! Threads for work that nobody waits for: they stand back while requests are answered.
//!
//! On a machine with few processors everything that runs takes time from everything else. What is
//! acknowledged is in the journal, so delivery may come later; an answer may not. The scheduler gives
//! such a thread all that is idle, and about a tenth of a processor that is contended.

use std::io;
use std::thread::{self, JoinHandle};

/// Niceness of such a thread; 0 is that of the threads that answer requests, 19 the most there is.
const NICE: i32 = 10;

/// Runs `work` on a thread of that name, at most 15 bytes of which systems show.
///
/// # Errors
/// When the machine gives no thread.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let lowered = move || {
        let thread = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
            tracing::debug!(%error, "cannot lower the priority of a thread");
        }
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(lowered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_runs_below_its_starter() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let (told, heard) = std::sync::mpsc::channel();
        spawn("test", move || told.send(nice()).unwrap()).unwrap().join().unwrap();
        assert_eq!((heard.recv().unwrap(), nice()), (NICE.max(before), before));
    }
}
