//! Which versions of Envoy will do.

use std::fmt;

/// Below this nothing was tried. Every release uses certificates on demand by server name (`on_demand_secret` with the
/// `sni` mapper), which older ones lack or have in another form.
const FLOOR: Version = Version(1, 40, 0);

/// A version of Envoy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(u64, u64, u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Reads what `envoy --version` prints: `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
    pub fn from_banner(banner: &str) -> Option<Self> {
        let (_, rest) = banner.split_once(" version: ")?;
        let mut parts = rest.split('/');
        let (_, version, _) = (parts.next()?, parts.next()?, parts.next()?);
        let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
        let mut numbers = version[..end].split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// The sentence with which to refuse a version that is too old.
    pub fn judge(self) -> Result<(), String> {
        if self >= FLOOR {
            return Ok(());
        }
        Err(format!(
            "Envoy {self} is too old: the configuration needs Envoy {FLOOR} or later (certificates on demand by server \
             name)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_the_version() {
        let read = |banner| Version::from_banner(banner).map(|version| version.to_string());
        assert_eq!(
            read("\nenvoy  version: 9e5580933739775e8bce/1.40.0/Clean/RELEASE/BoringSSL\n").as_deref(),
            Some("1.40.0")
        );
        assert_eq!(read("envoy  version: 0/1.41.0-dev/Modified/DEBUG/BoringSSL").as_deref(), Some("1.41.0"));
        assert_eq!(read("nginx version: nginx/1.30.6"), None);
        assert_eq!(read("usage: something"), None);
    }

    #[test]
    fn a_version_that_is_too_old_is_refused_with_the_reason() {
        assert_eq!(Version(1, 40, 0).judge(), Ok(()));
        assert_eq!(
            Version(1, 39, 9).judge().unwrap_err(),
            "Envoy 1.39.9 is too old: the configuration needs Envoy 1.40.0 or later (certificates on demand by server name)"
        );
    }
}
