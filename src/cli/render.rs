//! `coxswain render`: what would be published, printed or written into a folder. Nothing is changed anywhere else.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::flags::Common;
use super::input::Input;
use super::{layout, told};
use crate::render::{File, History, RelativePath, Rendering, render, standalone};
use crate::settings::Settings;
use crate::translate::{HeldBack, translate};
use crate::volume::ProxyKind;

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
        let Some(folder) = &self.output else {
            return match proxy.proxy {
                ProxyKind::Nginx => print(&main(&rendering)?.bytes),
                ProxyKind::Envoy => print(standalone(&translation.config)?.as_bytes()),
            };
        };
        let release = layout::write(folder, &rendering.release, &translation.config)?;
        let bin = proxy.proxy_bin.clone().unwrap_or_else(|| proxy.proxy.to_string().into());
        let test = layout::test(proxy.proxy, &bin, &release);
        eprintln!("to have it tested: {test}");
        Ok(())
    }
}

fn main(rendering: &Rendering) -> anyhow::Result<&File> {
    rendering.release.files.get(&RelativePath::MAIN).context("the release has no main file")
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    std::io::stdout().write_all(text).context("printing")
}
