//! What Envoy says when it does not take something: whose fault that is, and where.
//!
//! Pure. The closed list of what the environment is to blame for is here; everything else is content.

use crate::agent::rejection::Rejection;
use crate::agent::xds::kind::Kind;
use crate::agent::xds::session::Refusal;
use crate::agent::xds::target::Target;
use crate::volume::release;

/// What Envoy says of its surroundings.
const ENVIRONMENT: [&str; 7] = [
    "cannot bind ",
    "Address already in use",
    "Permission denied",
    "Too many open files",
    "Cannot allocate memory",
    "No space left on device",
    "Cannot assign requested address",
];

/// From a push that was refused. The file is the one of its kind in the release, the line the number of the resource
/// in it, where Envoy names one.
pub fn of_refusal(refusal: &Refusal, target: &Target) -> Rejection {
    let file = match refusal.kind {
        Kind::Cluster => Some(release::CLUSTERS),
        Kind::Listener => Some(release::LISTENERS),
        Kind::Routes => Some(release::ROUTES),
        Kind::Endpoints | Kind::Secret => None,
    };
    let rejection = of_words(&refusal.words);
    let line = to_blame(refusal).and_then(|name| target.names(refusal.kind).position(|other| other == name));
    let line = line.and_then(|line| u64::try_from(line + 1).ok());
    Rejection { file: file.map(str::to_owned), line, ..rejection }
}

/// From what Envoy said about a configuration.
pub fn of_words(words: &str) -> Rejection {
    let surroundings = ENVIRONMENT.iter().any(|known| words.contains(known));
    if surroundings { Rejection::environment(words) } else { Rejection::content(words) }
}

/// The resource that Envoy names, or the only one that it can mean. Names may be part of each other: the longest counts.
fn to_blame(refusal: &Refusal) -> Option<&String> {
    match refusal.names.as_slice() {
        [only] => Some(only),
        names => names.iter().filter(|name| refusal.words.contains(name.as_str())).max_by_key(|name| name.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::FaultClass;

    fn refused(kind: Kind, words: &str, names: &[&str]) -> Rejection {
        let target = Target::of(&[(kind, "a", "1"), (kind, "shop", "1"), (kind, "shop-web", "1"), (kind, "z", "1")]);
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        of_refusal(&Refusal { kind, words: words.to_owned(), names, superseded: false }, &target)
    }

    #[test]
    fn the_resource_that_envoy_names_is_told_by_its_place_in_the_release() {
        let words = "Error adding/updating cluster(s) shop-web: malformed IP address: not-an-ip";
        let rejection = refused(Kind::Cluster, words, &["a", "shop", "shop-web"]);
        assert_eq!(
            (rejection.class, rejection.file.as_deref(), rejection.line),
            (FaultClass::Content, Some("clusters.pb"), Some(3))
        );
        assert_eq!(rejection.message, words);
        let nobody = refused(Kind::Cluster, "Only unique values are permitted", &["shop", "z"]);
        assert_eq!((nobody.file.as_deref(), nobody.line), (Some("clusters.pb"), None));
        let only = refused(Kind::Listener, "Only unique values are permitted", &["z"]);
        assert_eq!((only.file.as_deref(), only.line), (Some("listeners.pb"), Some(4)));
    }

    #[test]
    fn a_fault_of_the_surroundings_blames_nobody() {
        let words = "Error adding/updating listener(s) z: cannot bind '0.0.0.0:80': Permission denied";
        assert_eq!(refused(Kind::Listener, words, &["z"]).class, FaultClass::Environment);
    }
}
