//! The command line: one file a command. A command wires; nothing is decided here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod agent;
pub mod annotations;
pub mod check;
pub mod install;

/// A Kubernetes Ingress controller that steers an unmodified nginx.
#[derive(Debug, Parser)]
#[command(name = "coxswain", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run beside the proxy: test, take up and watch over what the controller publishes.
    Agent(agent::Agent),
    /// Print the reference of all annotations and settings.
    Annotations(annotations::Annotations),
    /// Copy this executable to a folder (the init container's work).
    Install(install::Install),
}

impl Cli {
    /// Does what was asked. The exit codes: 0 good, 2 wrong use, 3 could not do it.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Agent(agent) => agent.run(),
            Command::Annotations(annotations) => annotations.run(),
            Command::Install(install) => install.run(),
        }
    }
}
