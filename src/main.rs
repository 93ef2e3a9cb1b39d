//! The executable.

use std::process::ExitCode;

use clap::Parser;
use coxswain::cli::Cli;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Cli::parse().run()
}
