//! Which Ingresses are ours: by IngressClass, by name where IngressClasses cannot be read, by the legacy annotation, or
//! by having no class at all.
//!
//! The verdict is derived anew from each snapshot, so a class that comes, goes or changes hands takes effect at once.
//! What the parameters of a class say is read in `settings`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::problem::{Problem, Reason, Subject};
use crate::settings::Flags;
use crate::snapshot::{Origin, Snapshot};
use crate::value::reference::{Name, ObjectName};
use crate::value::{Value as _, shown};

/// The annotation that named the class before there was a field for it.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

const NOT_SERVED: &str = "the Ingress is not served here";

/// Whether an Ingress is ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is. Its class, where an IngressClass stands behind it: the one whose parameters count.
    Ours(Option<Name>),
    /// It is not; with what its author should know, if anything. In a cluster the Ingresses of other controllers are
    /// nobody's mistake; among files that were given to us, whatever is left out is told.
    Foreign(Option<Box<Problem>>),
}

/// Judges an Ingress. The field counts before the annotation, and neither only with `--watch-ingress-without-class`.
pub fn judge(subject: &Subject, ingress: &Ingress, flags: &Flags, snapshot: &Snapshot) -> Verdict {
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let annotation = ingress.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)).map(String::as_str);
    let told = Told { subject, flags, origin: snapshot.origin };
    match (field, annotation, &snapshot.ingress_classes) {
        (Some(name), _, Some(classes)) => by_class(told, name, classes),
        (Some(name), _, None) if name == flags.ingress_class => Verdict::Ours(None),
        (Some(name), _, None) => told.another_name(name),
        (None, Some(name), _) if name == flags.ingress_class => Verdict::Ours(None),
        (None, Some(name), _) => told.another_annotation(name),
        (None, None, _) if flags.watch_ingress_without_class => Verdict::Ours(None),
        (None, None, _) => told.no_class(),
    }
}

fn by_class(told: Told<'_>, name: &str, classes: &BTreeMap<ObjectName, Arc<IngressClass>>) -> Verdict {
    let found = Name::parse(name).ok().and_then(|name| {
        let name = ObjectName::cluster(name);
        classes.get(&name).map(|class| (name, class))
    });
    match found {
        None => told.no_such_class(name),
        Some((name, class)) if told.flags.owns(&name, class) => Verdict::Ours(Some(name.name)),
        Some((name, class)) => told.another_controller(&name, class),
    }
}

/// The sentences about Ingresses that are not ours.
#[derive(Clone, Copy)]
struct Told<'a> {
    subject: &'a Subject,
    flags: &'a Flags,
    origin: Origin,
}

impl Told<'_> {
    /// Told everywhere: nobody serves such an Ingress.
    fn no_such_class(self, name: &str) -> Verdict {
        let message = format!("the IngressClass {} does not exist; it must be the name of one that does", shown(name));
        let effect = "the Ingress is not served here until its class exists";
        let problem = self.subject.degraded(Reason::ClassNotFound, FIELD, message, effect);
        Verdict::Foreign(Some(Box::new(problem)))
    }

    fn another_controller(self, name: &ObjectName, class: &IngressClass) -> Verdict {
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
        self.foreign(FIELD, || {
            format!(
                "the IngressClass {name} belongs to the controller {}; to be served here, its `spec.controller` must be {}",
                shown(controller),
                shown(&self.flags.controller_class)
            )
        })
    }

    fn another_name(self, name: &str) -> Verdict {
        self.foreign(FIELD, || {
            format!(
                "the class {} is not ours; without any IngressClass in the input it must be {} (`--ingress-class`)",
                shown(name),
                shown(&self.flags.ingress_class)
            )
        })
    }

    fn another_annotation(self, name: &str) -> Verdict {
        self.foreign(&format!("metadata.annotations[{ANNOTATION}]"), || {
            format!(
                "the class {} is not ours; in this annotation it must be {} (`--ingress-class`)",
                shown(name),
                shown(&self.flags.ingress_class)
            )
        })
    }

    fn no_class(self) -> Verdict {
        self.foreign(FIELD, || {
            "has no class; it must have one of ours, or `--watch-ingress-without-class` must be given".to_owned()
        })
    }

    fn foreign(self, field: &str, message: impl FnOnce() -> String) -> Verdict {
        Verdict::Foreign(match self.origin {
            Origin::Cluster => None,
            Origin::Files => Some(Box::new(self.subject.notice(Reason::ClassNotOurs, field, message(), NOT_SERVED))),
        })
    }
}

const FIELD: &str = "spec.ingressClassName";

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::{IngressClassSpec, IngressSpec};

    use super::*;
    use crate::problem::Kind;

    fn ingress(field: Option<&str>, annotation: Option<&str>) -> Ingress {
        let spec = IngressSpec { ingress_class_name: field.map(str::to_owned), ..Default::default() };
        let mut ingress = Ingress { spec: Some(spec), ..Default::default() };
        ingress.metadata.annotations =
            annotation.map(|name| BTreeMap::from([(ANNOTATION.to_owned(), name.to_owned())]));
        ingress
    }

    /// Classes by name, each with its controller.
    fn snapshot(classes: Option<&[(&str, &str)]>) -> Snapshot {
        let class = |(name, controller): &(&str, &str)| {
            let spec = IngressClassSpec { controller: Some((*controller).to_owned()), parameters: None };
            let class = IngressClass { spec: Some(spec), ..Default::default() };
            (ObjectName::cluster(Name::parse(name).unwrap()), Arc::new(class))
        };
        Snapshot { ingress_classes: classes.map(|all| all.iter().map(class).collect()), ..Snapshot::default() }
    }

    fn verdict(ingress: &Ingress, flags: &Flags, snapshot: &Snapshot) -> Result<Option<String>, Option<String>> {
        let subject = Subject { kind: Kind::Ingress, object: ObjectName::parse("a/b").unwrap(), uid: None };
        match judge(&subject, ingress, flags, snapshot) {
            Verdict::Ours(class) => Ok(class.map(|class| class.to_string())),
            Verdict::Foreign(problem) => Err(problem.map(|problem| problem.message)),
        }
    }

    const OURS: (&str, &str) = ("ours", "coxswain.dev/ingress");
    const OTHER: (&str, &str) = ("other", "k8s.io/ingress-nginx");
    /// Named like the flag, but another controller's.
    const NAMED: (&str, &str) = ("coxswain", "example.com/other");

    #[test]
    fn the_order_is_field_then_annotation_then_nothing() {
        let classes: &[_] = &[OURS, OTHER, NAMED];
        let plain = Flags::default();
        let classless = Flags { watch_ingress_without_class: true, ..Flags::default() };
        let by_name = Flags { ingress_class_by_name: true, ..Flags::default() };
        for (flags, field, annotation, classes, expected) in [
            // The field decides by the controller of its class, whatever the annotation says.
            (&plain, Some("ours"), None, Some(classes), Some(Some("ours"))),
            (&plain, Some("ours"), Some("other"), Some(classes), Some(Some("ours"))),
            (&plain, Some("other"), Some("coxswain"), Some(classes), None),
            (&plain, Some("missing"), Some("coxswain"), Some(classes), None),
            (&classless, Some("missing"), None, Some(classes), None),
            (&plain, Some("coxswain"), None, Some(classes), None),
            (&by_name, Some("coxswain"), None, Some(classes), Some(Some("coxswain"))),
            // The annotation is compared with the flag.
            (&plain, None, Some("coxswain"), Some(classes), Some(None)),
            (&plain, None, Some("ours"), Some(classes), None),
            (&classless, None, Some(""), Some(classes), None),
            // Neither.
            (&plain, None, None, Some(classes), None),
            (&classless, None, None, Some(classes), Some(None)),
            // Where IngressClasses cannot be read the field is compared by name.
            (&plain, Some("coxswain"), None, None, Some(None)),
            (&plain, Some("ours"), None, None, None),
            (&plain, Some("ours"), Some("coxswain"), None, None),
            (&plain, None, Some("coxswain"), None, Some(None)),
            (&classless, None, None, None, Some(None)),
        ] {
            let got = verdict(&ingress(field, annotation), flags, &snapshot(classes));
            let expected = expected.map(|class| class.map(str::to_owned));
            assert_eq!(got.ok(), expected, "{field:?} {annotation:?} {classes:?}");
        }
    }

    #[test]
    fn only_a_class_that_does_not_exist_is_told_in_a_cluster() {
        let flags = Flags::default();
        let classes = snapshot(Some(&[OURS, OTHER]));
        let told = |field, annotation| verdict(&ingress(field, annotation), &flags, &classes).unwrap_err();
        assert_eq!(
            told(Some("mis\u{1b}sing"), None).as_deref(),
            Some(r#"the IngressClass "mis\u{1b}sing" does not exist; it must be the name of one that does"#)
        );
        assert_eq!(told(Some("other"), None), None);
        assert_eq!(told(None, Some("other")), None);
        assert_eq!(told(None, None), None);
    }

    #[test]
    fn whatever_is_left_out_of_files_is_told() {
        let flags = Flags::default();
        let files = |classes| Snapshot { origin: Origin::Files, ..snapshot(classes) };
        let told = |field, annotation, classes| {
            verdict(&ingress(field, annotation), &flags, &files(classes)).unwrap_err().unwrap()
        };
        assert_eq!(
            told(Some("other"), None, Some(&[OTHER])),
            "the IngressClass other belongs to the controller \"k8s.io/ingress-nginx\"; to be served here, its \
             `spec.controller` must be \"coxswain.dev/ingress\""
        );
        assert_eq!(
            told(Some("nginx"), None, None),
            "the class \"nginx\" is not ours; without any IngressClass in the input it must be \"coxswain\" \
             (`--ingress-class`)"
        );
        assert!(told(None, Some("nginx"), None).starts_with("the class \"nginx\" is not ours"));
        assert!(told(None, None, None).starts_with("has no class"));
    }
}
