//! `coxswain install DIR`: copies this executable. A static image has no `cp`, and its init container needs one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

/// Copies this executable to a folder, where the proxy's container finds it.
#[derive(Debug, clap::Args)]
pub struct Install {
    /// The folder. It is made if there is none.
    #[arg(value_name = "DIR", env = "COXSWAIN_INSTALL_DIR")]
    folder: PathBuf,
}

impl Install {
    /// Copies, and says where to.
    pub fn run(self) -> ExitCode {
        match install(&self.folder) {
            Ok(path) => {
                eprintln!("installed {}", path.display());
                ExitCode::SUCCESS
            }
            Err(err) => {
                eprintln!("error: {err:#}");
                ExitCode::from(3)
            }
        }
    }
}

/// Whole or not at all: a proxy's container that starts meanwhile must not find half an executable, and a running one
/// keeps the file that it has.
fn install(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("coxswain");
    let new = folder.join(".coxswain.new");
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::copy("/proc/self/exe", &new)
        .and_then(|_| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("copying this executable to {}", path.display()))?;
    Ok(path)
}
