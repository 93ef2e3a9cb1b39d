//! `coxswain render`: what would be published, printed or written into a folder. Nothing is changed anywhere else.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::flags::Common;
use super::input::Input;
use super::{layout, told};
use crate::render::{History, RelativePath, Rendering, render};
use crate::settings::Settings;
use crate::translate::{HeldBack, translate};

/// Flags of `coxswain render`.
#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    common: Common,

    /// Write everything into this folder, as it would lie on the volume, instead of printing it: the proxy's own test
    /// passes there.
    #[arg(short = 'o', long = "output-dir", env = "COXSWAIN_OUTPUT_DIR", value_name = "DIR")]
    output: Option<PathBuf>,
}

impl From<Common> for Render {
    fn from(common: Common) -> Self {
        Self { common, output: None }
    }
}

impl Render {
    /// Prints or writes, and tells problems on standard error.
    pub fn run(self) -> ExitCode {
        told(self.render())
    }

    fn render(self) -> anyhow::Result<()> {
        let proxy = &self.common.proxy;
        let Input { snapshot, flags, now } = Input::read(&self.common)?;
        let (settings, mut problems) = Settings::read(&flags, &snapshot);
        let translation = translate(&snapshot, &settings, &HeldBack::default(), now);
        let rendering = render(&translation.config, proxy.proxy, &History::default())?;
        problems.extend(snapshot.problems.iter().chain(&translation.problems).chain(&rendering.problems).cloned());
        problems.sort();
        for problem in &problems {
            eprintln!("{}: {problem}", problem.severity);
        }
        let Some(folder) = &self.output else { return print(&rendering) };
        let release = layout::write(folder, &rendering.release, &translation.config)?;
        let bin = proxy.proxy_bin.as_deref().unwrap_or(Path::new("nginx")).display();
        eprintln!("to have it tested: {bin} -t -p {}/ -c {}", release.display(), RelativePath::MAIN);
        Ok(())
    }
}

fn print(rendering: &Rendering) -> anyhow::Result<()> {
    let main = rendering.release.files.get(&RelativePath::MAIN).context("the release has no main file")?;
    std::io::stdout().write_all(&main.bytes).context("printing")
}
