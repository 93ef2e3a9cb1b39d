//! One volume, one agent: `out/agent.lock`.
//!
//! The lock is the kernel's (`flock`), never a pid that may be somebody else's by now. The pid in the file is for the
//! sentence that a second agent says.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::processes;
use crate::volume::Volume;

/// How long a former agent may take to let go: it may have been killed this very moment.
const PATIENCE: Duration = Duration::from_secs(3);

/// The same for one that is dead already: the kernel closes its files one after the other, and on a busy machine some
/// of them (watches, sockets) take their time.
const PATIENCE_WITH_THE_DEAD: Duration = Duration::from_secs(30);

/// Takes the lock for as long as the returned value lives, or says who holds it.
pub async fn claim(volume: &Volume) -> anyhow::Result<Flock<File>> {
    let path = volume.output().join("agent.lock");
    let begun = Instant::now();
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(|| format!("opening {}", path.display()))?;
        let mut holder = String::new();
        // Only for the sentence below.
        let _ = file.read_to_string(&mut holder);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let say = |file: &mut File| {
                    file.set_len(0)?;
                    file.rewind()?;
                    writeln!(file, "{}", std::process::id())
                };
                // Without it the lock is as good, and only the sentence of a second agent is not.
                let _ = say(&mut lock);
                return Ok(lock);
            }
            Err((_, Errno::EWOULDBLOCK)) if begun.elapsed() < patience_with(&holder) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "another agent (process {}) serves {}: a volume has one agent; end that one, or give this one a \
                 --proxy-dir of its own",
                holder.trim(),
                volume.root().display()
            ),
            Err((_, err)) => return Err(err).with_context(|| format!("locking {}", path.display())),
        }
    }
}

fn patience_with(holder: &str) -> Duration {
    match holder.trim().parse() {
        Ok(pid) if processes::alive(pid) => PATIENCE,
        _ => PATIENCE_WITH_THE_DEAD,
    }
}
