//! Lists of ciphers in OpenSSL's notation, checked as far as one can without OpenSSL.
//!
//! The proxy refuses its whole configuration when a list leaves no cipher at all, and passes over names that it does
//! not know in silence. So a list must be made of names that OpenSSL has or had, and must leave at least one cipher that
//! every build of OpenSSL in use has; the list is followed for those.

use std::fmt;

use serde::Serialize;

use super::{Invalid, Value, shown};

/// Ciphers up to TLS 1.2 in OpenSSL's notation, in order of preference.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ciphers(String);

impl Ciphers {
    /// The list.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ciphers in common use that the list leaves, for a proxy that does not read OpenSSL's notation: those that it
    /// names, in its order, then what its classes add.
    pub fn common(&self) -> Vec<&'static str> {
        let left = Left::of(&self.0).unwrap_or_default();
        let active = || COMMON.into_iter().zip(left.active).filter_map(|(name, active)| active.then_some(name));
        let named = self.0.split(':').filter_map(|element| active().find(|name| *name == element));
        let mut all: Vec<_> = named.collect();
        for name in active() {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    }
}

impl Default for Ciphers {
    fn default() -> Self {
        Self(
            [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-CHACHA20-POLY1305",
                "DHE-RSA-AES128-GCM-SHA256",
                "DHE-RSA-AES256-GCM-SHA384",
            ]
            .join(":"),
        )
    }
}

impl Value for Ciphers {
    const GRAMMAR: &'static str = "OpenSSL's names of ciphers joined by `:`, of which one at least is in common use";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |wrong: String| Err(Invalid::new(wrong, Self::GRAMMAR));
        // One word of nginx's configuration holds 4096 bytes.
        if !(1..=4000).contains(&text.len()) {
            return wrong("is empty or longer than 4000 bytes".to_owned());
        }
        match Left::of(text) {
            Err(element) => wrong(format!("has {}, which is no name of ciphers", shown(element))),
            Ok(left) if left.active.contains(&true) => Ok(Self(text.to_owned())),
            Ok(_) => wrong("leaves no cipher that is in common use".to_owned()),
        }
    }
}

impl fmt::Display for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ciphers that every build of OpenSSL in use has.
const COMMON: [&str; 27] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
    "DHE-RSA-AES256-SHA256",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "DHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "DHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "DHE-RSA-AES128-SHA",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
    "AES256-SHA256",
    "AES128-SHA256",
    "AES256-SHA",
    "AES128-SHA",
];

/// Which of [`COMMON`] a list leaves, element by element.
struct Left {
    active: [bool; COMMON.len()],
    killed: [bool; COMMON.len()],
}

impl Default for Left {
    fn default() -> Self {
        Self { active: [false; COMMON.len()], killed: [false; COMMON.len()] }
    }
}

impl Left {
    /// Follows a list; the error is the element that is no name.
    fn of(text: &str) -> Result<Self, &str> {
        let mut left = Self::default();
        for (n, element) in text.split(':').enumerate() {
            let known = match (n, element) {
                (_, "@STRENGTH" | "@SECLEVEL=0" | "@SECLEVEL=1" | "@SECLEVEL=2" | "@SECLEVEL=3") => true,
                (0, "DEFAULT") => left.apply(' ', "ALL"),
                _ => match element.split_at_checked(1) {
                    Some((op @ ("!" | "-" | "+"), terms)) => left.apply(op.chars().next().unwrap_or(' '), terms),
                    _ => left.apply(' ', element),
                },
            };
            if !known {
                return Err(element);
            }
        }
        Ok(left)
    }

    /// Follows one element: terms joined by `+`, of which a cipher must fit each. False: a term that is no name.
    fn apply(&mut self, op: char, terms: &str) -> bool {
        if !terms.split('+').all(known) {
            return false;
        }
        for (n, cipher) in COMMON.into_iter().enumerate() {
            if !terms.split('+').all(|term| fits(cipher, term)) {
                continue;
            }
            match op {
                '!' => (self.active[n], self.killed[n]) = (false, true),
                '-' => self.active[n] = false,
                '+' => {}
                _ => self.active[n] = !self.killed[n],
            }
        }
        true
    }
}

/// Whether a cipher of [`COMMON`] belongs to what a term names: itself or a class.
fn fits(cipher: &str, term: &str) -> bool {
    let has = |part: &str| cipher.split('-').any(|p| p == part);
    let ends = |part: &str| cipher.ends_with(part);
    let gcm = has("GCM");
    let chacha = has("CHACHA20");
    let mac = |part: &str| !gcm && !chacha && ends(part);
    let ephemeral = has("ECDHE") || has("DHE");
    match term {
        "ALL" | "HIGH" => true,
        "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "ECDH" => has("ECDHE"),
        "DHE" | "EDH" | "kDHE" | "kEDH" | "DH" => has("DHE"),
        "kRSA" | "RSA" => !ephemeral,
        "aRSA" => !has("ECDSA"),
        "ECDSA" | "aECDSA" => has("ECDSA"),
        "AES" => !chacha,
        "AES128" => has("AES128"),
        "AES256" => has("AES256"),
        "AESGCM" => gcm,
        "CHACHA20" => chacha,
        "SHA" | "SHA1" => mac("-SHA"),
        "SHA256" => mac("-SHA256"),
        "SHA384" => mac("-SHA384"),
        "TLSv1" | "TLSv1.0" => mac("-SHA") && has("ECDHE"),
        "SSLv3" => mac("-SHA") && !has("ECDHE"),
        "TLSv1.2" => !mac("-SHA"),
        _ => cipher == term,
    }
}

/// Whether a term is a name that OpenSSL has or had, of a class or of one cipher.
fn known(term: &str) -> bool {
    #[rustfmt::skip]
    const CLASSES: &[&str] = &[
        "3DES", "ADH", "AECDH", "AES", "AES128", "AES256", "AESCCM", "AESCCM8", "AESGCM", "ALL", "ARIA", "ARIA128",
        "ARIA256", "ARIAGCM", "CAMELLIA", "CAMELLIA128", "CAMELLIA256", "CBC", "CHACHA20", "COMPLEMENTOFALL",
        "COMPLEMENTOFDEFAULT", "DES", "DH", "DHE", "DSS", "ECDH", "ECDHE", "ECDSA", "EDH", "EECDH", "EXP", "EXPORT",
        "EXPORT40", "EXPORT56", "FIPS", "GOST12", "GOST89", "GOST89MAC", "GOST94", "HIGH", "IDEA", "KRB5", "LOW", "MD5",
        "MEDIUM", "NULL", "PSK", "RC2", "RC4", "RSA", "SEED", "SHA", "SHA1", "SHA256", "SHA384", "SRP", "SSLv2", "SSLv3",
        "TLSv1", "TLSv1.0", "TLSv1.2", "aDH", "aDSS", "aECDH", "aECDSA", "aGOST", "aGOST01", "aGOST12", "aNULL", "aPSK",
        "aRSA", "aSRP", "eNULL", "kDHE", "kDHEPSK", "kECDH", "kECDHE", "kECDHEPSK", "kECDHe", "kECDHr", "kEDH",
        "kEECDH", "kGOST", "kGOST18", "kPSK", "kRSA", "kRSAPSK", "kSRP",
    ];
    #[rustfmt::skip]
    const PARTS: &[&str] = &[
        "3DES", "ADH", "AECDH", "AES128", "AES256", "ARIA", "ARIA128", "ARIA256", "CAMELLIA128", "CAMELLIA256", "CBC",
        "CBC3", "CCM", "CCM8", "CHACHA20", "DES", "DH", "DHE", "DSS", "ECDH", "ECDHE", "ECDSA", "EDE", "EDH", "EXP", "GCM",
        "IDEA", "KRB5", "MD5", "NULL", "POLY1305", "PSK", "RC2", "RC4", "RSA", "SEED", "SHA", "SHA256", "SHA384", "SRP",
    ];
    let parts = || term.split('-').all(|part| PARTS.contains(&part)) && term.contains('-');
    // TLS 1.3 has names of its own, which do no harm here: its ciphers are always offered.
    let tls13 = || term.starts_with("TLS_") && term.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    CLASSES.contains(&term) || parts() || tls13()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_the_field_are_taken() {
        for good in [
            Ciphers::default().as_str(),
            "HIGH:!aNULL:!MD5",
            "DEFAULT:!3DES:@SECLEVEL=2",
            "EECDH+AESGCM:EDH+AESGCM",
            "ECDHE+AESGCM:DHE+CHACHA20:!aNULL:!eNULL:!EXPORT:!DES:!RC4:!PSK:!SRP:!CAMELLIA",
            "TLS_AES_128_GCM_SHA256:ECDHE-RSA-AES128-SHA:DES-CBC3-SHA:!KRB5-DES-CBC3-SHA",
            "ALL:-ALL:AES128-SHA:@STRENGTH",
        ] {
            assert_eq!(Ciphers::parse(good).map(|c| c.0), Ok(good.to_owned()));
        }
    }

    #[test]
    fn lists_that_leave_nothing_are_refused() {
        for bad in [
            "!ALL",
            "HIGH:!ALL:HIGH",
            "ALL:-AES:-CHACHA20",
            "RC4-SHA",
            "TLS_AES_128_GCM_SHA256",
            "+AES",
            "HIGH:!TLSv1.2:!SHA",
        ] {
            assert_eq!(Ciphers::parse(bad).unwrap_err().wrong, "leaves no cipher that is in common use", "{bad}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused_by_name() {
        let wrong = |text: &str| Ciphers::parse(text).unwrap_err().wrong.into_owned();
        assert_eq!(wrong("HIGH:AES-GCM-256"), r#"has "AES-GCM-256", which is no name of ciphers"#);
        assert_eq!(wrong("HIGH:DEFAULT"), r#"has "DEFAULT", which is no name of ciphers"#);
        for bad in ["HIGH:", ":", "HIGH;LOW", "HIGH LOW", "HIGH:!", "@SECLEVEL=9", "HIGH\n", "\"HIGH\"", "HIGH:é"] {
            assert!(wrong(bad).ends_with("no name of ciphers"), "{bad:?}");
        }
    }
}
