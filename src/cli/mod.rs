//! The command line: one file a command. A command wires; nothing is decided here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, Log};

pub mod agent;
pub mod annotations;
pub mod check;
pub mod flags;
mod input;
pub mod install;
mod layout;
pub mod render;
pub mod run;
mod summary;

/// A Kubernetes Ingress controller that steers an unmodified nginx.
#[derive(Debug, Parser)]
#[command(name = "coxswain", version, arg_required_else_help = true, args_override_self = true)]
#[command(after_help = "Exit codes: 0 good, 1 something is rejected (check), 2 wrong use, 3 could not do it.")]
pub struct Cli {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve Ingresses: keep the proxy at what they say.
    #[command(args_override_self = true)]
    Run(run::Run),
    /// Run beside the proxy: test, take up and watch over what the controller publishes.
    #[command(args_override_self = true)]
    Agent(agent::Agent),
    /// Print every problem of every object, and change nothing.
    #[command(args_override_self = true)]
    Check(check::Check),
    /// Print the configuration that would be published, and change nothing.
    #[command(args_override_self = true)]
    Render(render::Render),
    /// Print the reference of all annotations and settings.
    Annotations(annotations::Annotations),
    /// Copy this executable to a folder (the init container's work).
    Install(install::Install),
}

impl Cli {
    /// Does what was asked. The exit codes: 0 good, 1 something is rejected (`check`), 2 wrong use, 3 could not do it.
    pub fn run(self) -> ExitCode {
        telemetry::start(&self.log);
        match self.command {
            Command::Run(run) => run.run(&self.log),
            Command::Agent(agent) => agent.run(),
            Command::Render(render) => render.run(),
            Command::Check(check) => check.run(),
            Command::Annotations(annotations) => annotations.run(),
            Command::Install(install) => install.run(),
        }
    }
}

/// Tells on standard error why something could not be done.
fn told(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}
