//! `coxswain annotations`: the reference of all annotations and settings, written from the registry.

use std::io::Write as _;
use std::process::ExitCode;

use crate::annotations::reference::{Form, reference};

/// Print the reference of all annotations and settings.
#[derive(Debug, clap::Args)]
pub struct Annotations {
    /// As Markdown, for a page of documentation, instead of text for a terminal.
    #[arg(long, env = "COXSWAIN_MARKDOWN")]
    markdown: bool,
}

impl Annotations {
    /// Prints it. A reader that has read enough (`| head`) is no fault.
    pub fn run(self) -> ExitCode {
        let form = if self.markdown { Form::Markdown } else { Form::Text };
        match std::io::stdout().write_all(reference(form).as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                eprintln!("error: printing the reference: {error}");
                ExitCode::from(3)
            }
            _ => ExitCode::SUCCESS,
        }
    }
}
