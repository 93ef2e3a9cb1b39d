//! Which versions of nginx will do: the floor of features, and the floors of security with the reason for each.

use std::fmt;

/// Below this, directives are missing that every release uses (`server … resolve`, `sticky`, `add_header_inherit`,
/// `ssl_certificate_cache`).
const FEATURE_FLOOR: Version = Version(1, 30, 0);

/// Known vulnerabilities that a release can meet, newest branch last: a version of the branch that is older than
/// `fixed_in` has them. Older branches than the first are below the feature floor, newer ones than the last have the fixes.
const FIXES: &[Fix] = &[
    Fix { fixed_in: Version(1, 30, 4), cves: "CVE-2026-42945, CVE-2026-9256 and CVE-2026-42533" },
    Fix { fixed_in: Version(1, 31, 3), cves: "CVE-2026-42945, CVE-2026-9256 and CVE-2026-42533" },
];

struct Fix {
    fixed_in: Version,
    cves: &'static str,
}

/// A version of nginx.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(u64, u64, u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Reads `1.30.6`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// Reads what `nginx -v` prints: `nginx version: nginx/1.30.6 (Debian)`.
    pub fn from_banner(banner: &str) -> Option<Self> {
        let (_, rest) = banner.split_once("nginx version: ")?;
        let (_, rest) = rest.split_once('/')?;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        Self::parse(&rest[..end])
    }

    /// Whether this version may carry traffic. `Ok(Some(…))` is a warning to be given at each start, `Err` the
    /// sentence with which to refuse.
    pub fn judge(self, accepted: Option<Self>) -> Result<Option<String>, String> {
        if self < FEATURE_FLOOR {
            return Err(format!(
                "nginx {self} is too old: the configuration needs nginx {FEATURE_FLOOR} or later (`server … resolve`, \
                 `sticky`, `add_header_inherit`, `ssl_certificate_cache`)"
            ));
        }
        let branch = |other: &&Fix| (other.fixed_in.0, other.fixed_in.1) == (self.0, self.1);
        let Some(fix) = FIXES.iter().find(branch).filter(|fix| self < fix.fixed_in) else { return Ok(None) };
        let vulnerable = format!("nginx {self} has {}, fixed in {}", fix.cves, fix.fixed_in);
        if accepted == Some(self) {
            return Ok(Some(format!("{vulnerable}; used all the same because of --accept-proxy-version {self}")));
        }
        Err(format!(
            "{vulnerable}: use that version or a later one, or, if your distribution has backported the fixes, say \
             --accept-proxy-version {self}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(version: &str, accepted: Option<&str>) -> Result<Option<String>, String> {
        let parse = |text| Version::parse(text).unwrap();
        parse(version).judge(accepted.map(parse))
    }

    #[test]
    fn the_banner_names_the_version() {
        let read = |banner| Version::from_banner(banner).map(|version| version.to_string());
        assert_eq!(read("nginx version: nginx/1.30.6\n").as_deref(), Some("1.30.6"));
        assert_eq!(read("nginx version: nginx/1.30.6 (Ubuntu)\nbuilt by gcc").as_deref(), Some("1.30.6"));
        assert_eq!(read("nginx version: nginx/1.x"), None);
        assert_eq!(read("usage: something"), None);
    }

    #[test]
    fn versions_below_a_floor_are_refused_with_the_reason() {
        assert_eq!(judge("1.30.4", None), Ok(None));
        assert_eq!(judge("1.31.3", None), Ok(None));
        assert_eq!(judge("1.32.0", None), Ok(None));
        let old = judge("1.29.9", Some("1.29.9")).unwrap_err();
        assert!(old.starts_with("nginx 1.29.9 is too old: the configuration needs nginx 1.30.0 or later"), "{old}");
        let vulnerable = judge("1.30.3", None).unwrap_err();
        assert_eq!(
            vulnerable,
            "nginx 1.30.3 has CVE-2026-42945, CVE-2026-9256 and CVE-2026-42533, fixed in 1.30.4: use that version or a \
             later one, or, if your distribution has backported the fixes, say --accept-proxy-version 1.30.3"
        );
        assert!(judge("1.31.2", None).is_err());
    }

    #[test]
    fn a_vulnerable_version_is_used_only_when_exactly_it_is_accepted_and_then_told() {
        assert!(judge("1.30.3", Some("1.30.2")).is_err());
        let warning = judge("1.30.3", Some("1.30.3")).unwrap().unwrap();
        assert!(warning.ends_with("used all the same because of --accept-proxy-version 1.30.3"), "{warning}");
    }
}
