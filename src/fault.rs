//! Places where a test makes this process die, to prove that any moment will do.
//!
//! After each step of the volume's protocol stands a [`point`]. A test arms one by putting a file of its name into the
//! folder named by `COXSWAIN_FAULTS`; whoever comes by takes the file away and ends at once, as by `kill -9`. In every
//! other build a point is nothing at all: it is compiled in only with the feature `fault-points`, which only tests
//! have (the package depends on itself with it, for development).

/// Dies here, if a test has armed this point.
#[cfg(any(test, feature = "fault-points"))]
pub fn point(name: &str) {
    use nix::sys::signal::{Signal, raise};

    let armed = std::env::var_os("COXSWAIN_FAULTS").map(|folder| std::path::Path::new(&folder).join(name));
    if armed.is_some_and(|file| std::fs::remove_file(file).is_ok()) {
        // Nothing can be done about a kill that fails, and a test that waits for this death says so.
        let _ = raise(Signal::SIGKILL);
    }
}

/// Nothing: faults are armed in tests only.
#[cfg(not(any(test, feature = "fault-points")))]
pub fn point(_name: &str) {}
