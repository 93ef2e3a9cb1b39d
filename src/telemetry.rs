//! The log: where it goes and how it looks. What is logged, and at which level, is everybody's own business.
//!
//! Everything goes to standard error; standard output is for data.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Flags of the log, the same for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The log")]
pub struct Log {
    /// How much is logged: error, warn, info, debug or trace, also by module (info,coxswain::agent=debug).
    #[arg(long, env = "COXSWAIN_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = level)]
    #[arg(global = true)]
    pub log_level: String,

    /// How it looks: for people, or one JSON object a line.
    #[arg(long, env = "COXSWAIN_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: Format,
}

impl Log {
    /// The same flags for a process that we start.
    pub fn arguments(&self) -> [String; 2] {
        let format = match self.log_format {
            Format::Text => "text",
            Format::Json => "json",
        };
        [format!("--log-level={}", self.log_level), format!("--log-format={format}")]
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log of this process. Called once.
pub fn start(log: &Log) {
    let filter = EnvFilter::builder().parse_lossy(&log.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.log_format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}

fn level(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("is no level; it must be error, warn, info, debug or trace, also by module".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_means_nothing_is_refused() {
        for (text, good) in [("info", true), ("warn,coxswain::agent=debug", true), ("", false), ("a=b=c", false)] {
            assert_eq!(level(text).is_ok(), good, "{text:?}");
        }
    }
}
