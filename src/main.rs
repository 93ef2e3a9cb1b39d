//! The executable.

use std::process::ExitCode;

use clap::Parser;
use coxswain::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
