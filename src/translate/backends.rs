//! What becomes of the requests of a path: the backend that it names, resolved.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{IngressServiceBackend, ServiceBackendPort};

use super::claims::Claim;
use super::ingresses::Ours;
use super::ports::{Port, Trouble};
use super::rules::Place;
use super::services::Services;
use super::static_files::{Content, StaticContents};
use crate::annotations::Policies;
use crate::model::{Action, BackendName, PathMatch, Upstream, UpstreamId};
use crate::problem::{Problem, Reason};
use crate::settings::{Flags, Settings};
use crate::snapshot::Snapshot;
use crate::value::reference::{Name, PortName};
use crate::value::{Value as _, shown};

const ANSWERS_503: &str = "requests for it are answered with 503";

/// What becomes of the requests of a path.
#[derive(Clone)]
pub struct Answer {
    /// Where they go, or what they are answered with.
    pub action: Action,
    /// The backend as it is named.
    pub backend: Option<BackendName>,
    /// What the annotations say.
    pub policies: Policies,
}

impl Answer {
    /// 503, with nothing that the Ingress says.
    pub fn closed() -> Self {
        Self { action: Action::Respond(503), backend: None, policies: Policies::default() }
    }
}

/// Everything that a backend can name.
pub struct Backends<'a> {
    services: Services<'a>,
    contents: StaticContents<'a>,
    prefix: &'a str,
    /// What was resolved last: the paths of an Ingress mostly lead to the same port.
    last: Option<Resolved<'a>>,
}

/// A backend of an Ingress that was resolved.
struct Resolved<'a> {
    of: &'a Ours<'a>,
    backend: &'a IngressServiceBackend,
    answer: Answer,
    trouble: Option<Trouble>,
}

impl<'a> Backends<'a> {
    /// Nothing is resolved yet.
    pub fn new(snapshot: &'a Snapshot, flags: &'a Flags) -> Self {
        Self {
            services: Services::new(snapshot, flags),
            contents: StaticContents::new(snapshot),
            prefix: &flags.annotations_prefix,
            last: None,
        }
    }

    /// Resolves the backend of a claim, unless its Ingress is closed.
    pub fn answer(&mut self, claim: &Claim<'a>, problems: &mut Vec<Problem>) -> Answer {
        let Claim { by: ingress, place, ref path, backend, .. } = *claim;
        if ingress.closed.is_some() {
            return Answer::closed();
        }
        let mut asked = Asked { ingress, place, problems };
        if backend.resource.is_some() && claim.rewrite.is_some() {
            let message = "rewrite-target changes nothing here: a ConfigMap is served by what follows the path of the \
                           rule; it must belong to a Service";
            let (field, effect) = (place.backend(".resource"), "the files are served by the path as it is sent");
            asked.problems.push(ingress.subject.notice(Reason::OutOfPlace, field, message, effect));
        }
        match (&backend.service, &backend.resource) {
            (Some(service), None) => self.service(asked, service),
            (None, Some(resource)) => self.resource(asked, resource, path),
            (Some(_), Some(_)) => {
                asked.refuse("", "the backend names a Service and a resource; it must name one of them".to_owned())
            }
            (None, None) => asked.refuse("", "the backend names nothing; it must name a Service".to_owned()),
        }
    }

    /// What answers where no Ingress does: `--default-backend-service`, else 404.
    pub fn controller_default(&mut self, settings: &Settings, problems: &mut Vec<Problem>) -> Answer {
        let base = settings.base(None);
        if !base.denied.is_empty() {
            return Answer::closed();
        }
        let not_found = Answer { action: Action::Respond(404), backend: None, policies: base.policies.clone() };
        let Some(name) = &settings.flags.default_backend_service else { return not_found };
        let found = self.services.named(name);
        let subject = found.subject();
        let Some(port) = found.first_port() else {
            let message = "must exist and have a TCP port, because `--default-backend-service` names it; it does not";
            let effect = "what no Ingress answers is answered with 404";
            problems.push(subject.degraded(Reason::ServiceNotFound, "", message, effect));
            return not_found;
        };
        let policies = found.policies(self.prefix, base, problems);
        if !policies.denied.is_empty() {
            return Answer::closed();
        }
        let (id, trouble) = self.services.resolve(found, &Port::Number(port), &policies, problems);
        if let Some(Trouble { reason, message, .. }) = trouble {
            problems.push(subject.degraded(reason, "", message, ANSWERS_503));
        }
        let backend = Some(BackendName { service: name.name.clone(), port: port.to_string() });
        Answer { action: Action::Forward(id), backend, policies: policies.policies.clone() }
    }

    /// All upstreams that were resolved.
    pub fn into_upstreams(self) -> BTreeMap<UpstreamId, Upstream> {
        self.services.into_upstreams()
    }

    fn service(&mut self, mut asked: Asked<'a, '_>, backend: &'a IngressServiceBackend) -> Answer {
        let ingress = asked.ingress;
        let same = |last: &&Resolved<'a>| std::ptr::eq(last.of, ingress) && last.backend == backend;
        if let Some(last) = self.last.as_ref().filter(same) {
            if let Some(trouble) = &last.trouble {
                asked.tell(trouble);
            }
            return last.answer.clone();
        }
        let service = match Name::parse(&backend.name) {
            Ok(name) => ingress.subject.object.sibling(name),
            Err(invalid) => {
                return asked.refuse(".service.name", format!("Service {} {invalid}", shown(&backend.name)));
            }
        };
        let port = match port(backend.port.as_ref()) {
            Ok(port) => port,
            Err(message) => return asked.refuse(".service.port", message),
        };
        let found = self.services.named(&service);
        let policies = found.policies(self.prefix, &ingress.policies, asked.problems);
        if !policies.denied.is_empty() {
            return Answer::closed();
        }
        let (id, trouble) = self.services.resolve(found, &port, &policies, asked.problems);
        if let Some(trouble) = &trouble {
            asked.tell(trouble);
        }
        let name = Some(BackendName { service: service.name, port: port.to_string() });
        let answer = Answer { action: Action::Forward(id), backend: name, policies: policies.policies.clone() };
        self.last = Some(Resolved { of: ingress, backend, answer: answer.clone(), trouble });
        answer
    }

    fn resource(&mut self, mut asked: Asked<'_, '_>, resource: &TypedLocalObjectReference, path: &PathMatch) -> Answer {
        let TypedLocalObjectReference { api_group, kind, name } = resource;
        let group = api_group.as_deref().unwrap_or_default();
        if !group.is_empty() || kind != "ConfigMap" {
            let given = if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
            let message = format!("{} is no kind of backend here; it must be a Service or a ConfigMap", shown(&given));
            return asked.reject(Reason::UnsupportedBackend, ".resource.kind", message);
        }
        let object = match Name::parse(name) {
            Ok(name) => asked.ingress.subject.object.sibling(name),
            Err(invalid) => return asked.refuse(".resource.name", format!("ConfigMap {} {invalid}", shown(name))),
        };
        if matches!(path, PathMatch::Regex(_)) {
            let message = "a ConfigMap is served by what follows the path, which a regular expression does not tell; the \
                           path must be Exact or Prefix";
            return asked.refuse(".resource", message.to_owned());
        }
        match self.contents.of(&object, asked.problems) {
            Content::Missing => {
                let message = format!("ConfigMap {object} does not exist; it must be in the Ingress's namespace");
                let field = asked.place.backend(".resource.name");
                let subject = &asked.ingress.subject;
                asked.problems.push(subject.degraded(Reason::ConfigMapNotFound, field, message, ANSWERS_503));
                Answer::closed()
            }
            Content::Files(files) => {
                let policies = asked.ingress.policies.policies.clone();
                Answer { action: Action::Files(files), backend: None, policies }
            }
        }
    }
}

fn port(port: Option<&ServiceBackendPort>) -> Result<Port, String> {
    let Some(ServiceBackendPort { name, number }) = port else {
        return Err("the Service has no port; it must have a number or a name".to_owned());
    };
    let name = name.as_deref().filter(|name| !name.is_empty());
    match (name, number.filter(|&number| number != 0)) {
        (None, Some(number)) => match u16::try_from(number) {
            Ok(number) => Ok(Port::Number(number)),
            Err(_) => Err(format!("port {number} is no port; it must be a number from 1 to 65535")),
        },
        (Some(name), None) => {
            PortName::parse(name).map(Port::Name).map_err(|invalid| format!("port {} {invalid}", shown(name)))
        }
        (Some(name), Some(number)) => {
            Err(format!("the port has a name ({}) and a number ({number}); it must have one of them", shown(name)))
        }
        (None, None) => Err("the port has neither name nor number; it must have one of them".to_owned()),
    }
}

/// A backend of an Ingress that is being resolved.
struct Asked<'a, 'p> {
    ingress: &'a Ours<'a>,
    place: Place,
    problems: &'p mut Vec<Problem>,
}

impl Asked<'_, '_> {
    fn refuse(&mut self, below: &str, message: String) -> Answer {
        self.reject(Reason::InvalidBackend, below, message)
    }

    fn reject(&mut self, reason: Reason, below: &str, message: String) -> Answer {
        let field = self.place.backend(below);
        self.problems.push(self.ingress.subject.rejected(reason, field, message, ANSWERS_503));
        Answer::closed()
    }

    fn tell(&mut self, trouble: &Trouble) {
        let Trouble { reason, below, message, served } = trouble;
        let (field, subject) = (self.place.backend(below), &self.ingress.subject);
        self.problems.push(match served {
            Some(effect) => subject.notice(*reason, field, message, effect),
            None => subject.degraded(*reason, field, message, ANSWERS_503),
        });
    }
}
