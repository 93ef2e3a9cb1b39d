//! The agent's own part of the configuration: what only this side of the volume knows.
//!
//! Every release includes these files. They are written before each start and each reload, and carry the stamp by
//! which the new workers are known.

use std::fmt::{self, Write};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};

use super::{User, log, status};
use crate::agent::access_log::AccessLog;
use crate::agent::dns::Responders;
use crate::volume::{Digest, LogLevel, Volume, local};

/// Certificate and key of the responders, in `out/`.
const RESPONDER_PAIR: &str = "responders.pem";

/// nginx's process id, in `out/`. nginx insists on one; the agent knows its proxy by other means.
pub const PID_FILE: &str = "nginx.pid";

/// What the workers of one start or reload answer on the status socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// The release.
    pub digest: Digest,
    /// How often it has been tried.
    pub attempt: u64,
    /// Grows with each start and reload, so that no two living workers of different generations look alike.
    pub serial: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.digest, self.attempt, self.serial)
    }
}

impl Stamp {
    /// Reads what a worker answered.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_ascii_whitespace();
        let digest = Digest::parse(parts.next()?)?;
        Some(Self { digest, attempt: parts.next()?.parse().ok()?, serial: parts.next()?.parse().ok()? })
    }
}

/// What differs from one start or reload to the next.
#[derive(Clone, Debug)]
pub struct Includes {
    /// Whom the new workers say they are.
    pub stamp: Stamp,
    /// The arguments of `resolver`.
    pub resolver: String,
    /// The release's own level.
    pub level: LogLevel,
    /// Where access is logged.
    pub access_log: AccessLog,
}

/// What is the same for all of them.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Who workers run as, when the agent may choose.
    pub user: Option<User>,
    /// How many workers suit the machine.
    pub workers: usize,
    /// Where requests to an upstream without endpoints are answered.
    pub responders: Responders,
}

impl Surroundings {
    /// Writes all includes, each whole or not at all.
    pub fn write(&self, volume: &Volume, includes: &Includes) -> anyhow::Result<()> {
        self.write_responder_pair(volume)?;
        let files = [
            (local::MAIN, self.main(volume, includes)?),
            (local::WORKERS, format!("worker_processes {};\n", self.workers)),
            (local::HTTP, self.http(volume, includes)?),
            (local::ACCESS_LOG, access_log(&includes.access_log)?),
        ];
        for (name, text) in files {
            replace(&volume.local(name), text.as_bytes(), 0o644)?;
            crate::fault::point("after-include");
        }
        Ok(())
    }

    fn main(&self, volume: &Volume, includes: &Includes) -> anyhow::Result<String> {
        let mut text =
            String::from("# By coxswain's agent, new at each start and reload.\ndaemon off;\nmaster_process on;\n");
        if let Some(user) = &self.user {
            writeln!(text, "user {} {};", quoted(&user.name)?, quoted(&user.group)?)?;
        }
        text.push_str(&files_of_master(volume)?);
        // Never less than what tells why a reload failed; what the release does not want is dropped on arrival.
        let level = includes.level.max(LogLevel::Crit).as_str();
        writeln!(text, "error_log syslog:server=unix:{},nohostname,tag=coxswain {level};", log::SOCKET)?;
        Ok(text)
    }

    fn http(&self, volume: &Volume, includes: &Includes) -> anyhow::Result<String> {
        let mut text = resolving(volume, &includes.resolver)?;
        write!(
            text,
            "server {{\n    listen unix:{};\n    allow all;\n    access_log off;\n    keepalive_timeout 0;\n    \
             location = {} {{ default_type text/plain; return 200 \"{}\\n\"; }}\n    \
             location = /stub_status {{ stub_status; }}\n    location / {{ return 404; }}\n}}\n",
            status::SOCKET,
            status::STAMP,
            includes.stamp,
        )?;
        self.responder(&mut text, self.responders.plain, false)?;
        self.responder(&mut text, self.responders.tls, true)?;
        Ok(text)
    }

    /// HTTP/1.1 and HTTP/2 on one port each: nginx tells them apart by the preface or by ALPN.
    fn responder(&self, text: &mut String, address: std::net::SocketAddr, tls: bool) -> fmt::Result {
        let ssl = if tls { " ssl" } else { "" };
        write!(text, "server {{\n    listen {address}{ssl};\n    http2 on;\n    allow all;\n    access_log off;\n")?;
        if tls {
            let pair = format!("../../../out/{RESPONDER_PAIR}");
            // Not what the ConfigMap allows clients: the other side is our own nginx.
            let tls = "ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_ciphers DEFAULT;";
            write!(text, "    ssl_certificate {pair};\n    ssl_certificate_key {pair};\n    {tls}\n")?;
        }
        text.push_str("    return 503;\n}\n");
        Ok(())
    }

    /// A certificate that nobody has to trust: upstreams are not verified unless the author asks for it.
    fn write_responder_pair(&self, volume: &Volume) -> anyhow::Result<()> {
        let path = volume.output().join(RESPONDER_PAIR);
        if path.exists() {
            return Ok(());
        }
        let pair = rcgen::generate_simple_self_signed(vec!["coxswain.internal".to_owned()])
            .context("making a certificate for the responders")?;
        let pem = format!("{}{}", pair.cert.pem(), pair.signing_key.serialize_pem());
        replace(&path, pem.as_bytes(), 0o600)
    }
}

/// Main context: the files that every master insists on.
pub fn files_of_master(volume: &Volume) -> anyhow::Result<String> {
    let (pid, lock) = (volume.output().join(PID_FILE), volume.output().join("nginx.lock"));
    Ok(format!("pid {};\nlock_file {};\n", quoted(pid)?, quoted(lock)?))
}

/// `http` context: where names are resolved (the arguments of `resolver`), and where bodies are put aside.
pub fn resolving(volume: &Volume, resolver: &str) -> anyhow::Result<String> {
    let mut text = format!("resolver {resolver};\nresolver_timeout 60s;\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "{kind}_temp_path {};", quoted(volume.temporary().join(kind))?)?;
    }
    Ok(text)
}

fn access_log(log: &AccessLog) -> anyhow::Result<String> {
    Ok(match &log.file {
        Some(file) => format!("access_log {} upstreaminfo;\n", quoted(file)?),
        None => "access_log off;\n".to_owned(),
    })
}

/// Puts `content` in place of the file by a rename.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // Whatever the umask says: the workers may be somebody else.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        std::io::Write::write_all(&mut file, content)?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// A path as one token of nginx's language.
fn quoted(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    let Some(text) = path.to_str().filter(|text| !text.chars().any(char::is_control)) else {
        bail!("{path:?} cannot stand in nginx's configuration: use a name of plain UTF-8 without control characters");
    };
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { digest: Digest::parse(&"a1".repeat(32)).unwrap(), attempt: 3, serial: 17 };
        assert_eq!(Stamp::parse(&format!("{stamp}\n")), Some(stamp));
        assert_eq!(Stamp::parse("404 page not found"), None);
    }

    #[test]
    fn a_path_is_one_token_whatever_it_is_made_of() {
        let quote = |path: &str| quoted(path).map_err(|err| err.to_string());
        assert_eq!(quote("/a b;{}#\"\\").unwrap(), "\"/a b;{}#\\\"\\\\\"");
        assert!(quote("/a\nb").unwrap_err().contains("control characters"));
    }
}
