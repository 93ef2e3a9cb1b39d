//! The executable.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use coxswain::cli::Cli;

fn main() -> ExitCode {
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).init();
    Cli::parse().run()
}
