//! Files, as `run -f` meets them: what they become, and what is told when they break.

use k8s_openapi::api::core::v1::Service;

use super::*;
use crate::value::Value;

/// A folder of files, and what was read from it.
struct Folder {
    folder: tempfile::TempDir,
    files: Files,
}

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let this = Self { files: Files::new(vec![folder.path().to_path_buf()]), folder };
        for (name, text) in files {
            this.write(name, text);
        }
        this
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn look(&mut self) -> (bool, Snapshot) {
        (self.files.look(), self.files.snapshot())
    }
}

/// Reads one file and returns what a person would be told of it, the folder left out.
fn told(text: &str) -> Vec<String> {
    let mut folder = Folder::new(&[("a.yaml", text)]);
    let (_, snapshot) = folder.look();
    let path = format!("{}/", folder.folder.path().display());
    snapshot.problems.iter().map(|p| format!("{} [{}] {p}", p.severity, p.field).replace(&path, "")).collect()
}

fn service<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Service>> {
    snapshot.services.get(&ObjectName::parse(name).unwrap())
}

fn service_text(name: &str, port: u16) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
}

const INGRESS: &str = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\n";

#[test]
fn objects_are_as_the_api_server_would_have_made_them() {
    let text = r#"
# a comment before the first document
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: shop}
stringData: {tls.crt: x, tls.key: z}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, creationTimestamp: null}
  spec: {ports: [{port: 80}]}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1}, addressType: IPv4, endpoints: [], ports: [{port: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressList
items:
- metadata: {name: web}
  spec: {rules: [{http: {paths: [{path: /, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
"#;
    assert_eq!(told(text), [""; 0]);
    let (_, snapshot) = Folder::new(&[("a.yaml", text)]).look();
    assert_eq!(snapshot.origin, Origin::Files);
    assert!(snapshot.ingress_classes.is_none(), "none in the input: matched by name");
    let web = ObjectName::parse("default/web").unwrap();
    let service = snapshot.services[&web].spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert_eq!(service[0].protocol.as_deref(), Some("TCP"));
    let slice = &snapshot.endpoint_slices[&ObjectName::parse("default/web-1").unwrap()];
    assert_eq!(slice.ports.as_ref().unwrap()[0].protocol.as_deref(), Some("TCP"));
    let rule = &snapshot.ingresses[&web].spec.as_ref().unwrap().rules.as_ref().unwrap()[0];
    assert_eq!(rule.http.as_ref().unwrap().paths[0].path_type, "ImplementationSpecific");
    let secret = &snapshot.secrets[&ObjectName::parse("shop/pair").unwrap()];
    assert!(secret.certificate.as_ref().unwrap_err().starts_with("cannot be used: "), "stringData was merged");
}

#[test]
fn json_is_read_too_also_several_documents_and_with_tabs() {
    let json = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}\n";
    let (_, snapshot) = Folder::new(&[("a.json", &format!("{json}{}", json.replace("\"a\"", "\"b\"")))]).look();
    assert_eq!(snapshot.services.len(), 2);
    assert_eq!(snapshot.problems, []);
    let flow = "{apiVersion: v1, kind: Service, metadata: {name: a}}";
    assert_eq!(Folder::new(&[("a.yaml", flow)]).look().1.services.len(), 1);
}

#[test]
fn a_document_that_does_not_fit_is_told_with_its_field_and_harms_no_other() {
    let bad_port = "spec: {rules: [{http: {paths: [{backend: {service: {name: web, port: {number: http}}}}]}}]}";
    let text = format!("{INGRESS}{bad_port}\n---\n{}", service_text("web", 80));
    let field = "spec.rules[0].http.paths[0].backend.service.port.number";
    assert_eq!(
        told(&text),
        [format!(
            "rejected [{field}] Ingress default/web: a.yaml, from line 1: the document does not fit: `{field}` is the text \
             \"http\"; it must be a number; it is skipped, the others are served"
        )]
    );
    assert!(service(&Folder::new(&[("a.yaml", &text)]).look().1, "default/web").is_some());
    for (text, told_part) in [
        ("just text", "File a.yaml: a.yaml, from line 1: the document is no Kubernetes object; it must be a mapping"),
        (
            "apiVersion: v1\nkind: Service\n",
            "[metadata.name] File a.yaml: a.yaml, from line 1: the document has no name",
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: Web_1}\n", "has the name \"Web_1\", which is not a name"),
        (
            "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: web}\n",
            "Ingress default/web: a.yaml, from line 1: the document has the apiVersion \"extensions/v1beta1\", which is not \
             read here; it must be networking.k8s.io/v1",
        ),
        (&format!("{INGRESS}spec: {{rules: {{host: a}}}}"), "`spec.rules` is a mapping; it must be a list"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {use-http2: true}\n",
            "`data[use-http2]` is true without quotes; it must be a text (in quotes",
        ),
    ] {
        let told = told(text);
        assert!(told.len() == 1 && told[0].contains(told_part), "{told:?}");
    }
}

#[test]
fn fields_that_no_such_object_has_are_told_and_ignored() {
    let text = format!("{INGRESS}specc: {{}}\nspec: {{rules: [{{hots: a, http: null}}], \"a b\": 1}}\nstatus: {{}}\n");
    let problem = |field: &str| {
        format!(
            "degraded [{field}] Ingress default/web: a.yaml, from line 1: no Ingress has a field `{field}`; it must be one \
             that the API knows; the field is ignored"
        )
    };
    assert_eq!(told(&text), [problem("spec[\"a b\"]"), problem("spec.rules[0].hots"), problem("specc")]);
}

#[test]
fn nothing_of_a_secret_is_shown_when_it_does_not_fit() {
    for data in
        ["data: HUSH", "data: {tls.key: 'HUSH!'}", "stringData: {tls.key: [HUSH]}", "data: {tls.key: {HUSH: 1}}"]
    {
        let told = told(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\n{data}\n"));
        assert!(told.len() == 1 && told[0].contains("ata") && !told[0].contains("HUSH"), "{told:?}");
    }
}

#[test]
fn base64_of_a_secret_may_have_line_breaks() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  tls.crt: |\n    YWJj\n    ZGVm\n";
    assert_eq!(told(text), [""; 0]);
}

#[test]
fn a_file_that_does_not_parse_keeps_its_former_objects_and_is_named_with_line_and_column() {
    let mut folder = Folder::new(&[("a.yaml", &service_text("a", 80)), ("b.yaml", &service_text("b", 80))]);
    assert!(folder.look().0);
    folder.write("a.yaml", &format!("{}---\nkind: [\n", service_text("other", 80)));
    folder.write("b.yaml", &service_text("c", 80));
    let (changed, snapshot) = folder.look();
    assert!(changed);
    assert!(service(&snapshot, "default/a").is_some() && service(&snapshot, "default/other").is_none());
    assert!(service(&snapshot, "default/c").is_some() && service(&snapshot, "default/b").is_none());
    let [problem] = &snapshot.problems[..] else { panic!("{:?}", snapshot.problems) };
    assert_eq!(problem.subject.to_string(), "File a.yaml");
    assert!(problem.field.ends_with("/a.yaml:6:7"), "{problem:?}");
    assert!(problem.message.contains("/a.yaml cannot be parsed: line 6, column 7: "), "{problem:?}");
    assert_eq!(problem.effect, FORMER);
    assert!(!folder.look().0, "the same mistake is not told twice");
    folder.write("a.yaml", "");
    let (changed, snapshot) = folder.look();
    assert!(changed && service(&snapshot, "default/a").is_none() && snapshot.problems.is_empty());
    assert!(!folder.look().0);
}

#[test]
fn bytes_that_are_no_text_and_the_same_key_twice_are_told() {
    for (bytes, part) in [
        (&b"a: 1\nb: \xff\n"[..], "line 2, column 4: this is not UTF-8"),
        (b"kind: a\nkind: b\n", "line 2, column 1: duplicate mapping key"),
    ] {
        let broken = document::parse("x", bytes).err().unwrap();
        let text = format!("line {}, column {}: {}", broken.line, broken.column, broken.message);
        assert!(text.starts_with(part), "{text}");
    }
}

#[test]
fn few_aliases_that_stand_for_very_much_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..9 {
        let before = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    assert!(document::parse("x", text.as_bytes()).is_err());
}

#[test]
fn ten_thousand_documents_are_read_as_they_are_and_as_one_list() {
    let documents: Vec<String> = (0..10_000).map(|n| service_text(&format!("s{n}"), 80)).collect();
    let (_, snapshot) = Folder::new(&[("a.yaml", &documents.join("---\n"))]).look();
    assert_eq!((snapshot.services.len(), snapshot.problems.len()), (10_000, 0));
    let item =
        |n| format!("- {{apiVersion: v1, kind: Service, metadata: {{name: s{n}}}, spec: {{ports: [{{port: 80}}]}}}}\n");
    let list: String = (0..21_000).map(item).collect();
    let parsed = document::parse("x", format!("apiVersion: v1\nkind: List\nitems:\n{list}").as_bytes());
    assert_eq!(parsed.map(|parsed| parsed.objects.len()), Ok(21_000));
}

#[test]
fn files_come_and_go_and_other_files_of_the_folder_do_not_count() {
    let mut folder = Folder::new(&[("a.yaml", &service_text("a", 80)), ("README.md", "{"), (".b.yaml", "{")]);
    std::fs::create_dir(folder.folder.path().join("sub.yaml")).unwrap();
    assert_eq!(folder.look().1.problems, []);
    folder.write("b.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"}}"#);
    let (changed, snapshot) = folder.look();
    assert!(changed && snapshot.services.len() == 2);
    fs::remove_file(folder.folder.path().join("a.yaml")).unwrap();
    let (changed, snapshot) = folder.look();
    assert!(changed && service(&snapshot, "default/a").is_none() && snapshot.services.len() == 1);
    assert!(!folder.look().0);
}

#[test]
fn a_path_that_is_gone_is_told_and_takes_its_objects_along() {
    let folder = Folder::new(&[("a.yaml", &service_text("a", 80))]);
    let path = folder.folder.path().join("a.yaml");
    let mut files = Files::new(vec![path.clone()]);
    assert!(files.look() && files.snapshot().services.len() == 1);
    fs::remove_file(path).unwrap();
    assert!(files.look() && files.snapshot().services.is_empty());
    assert!(files.snapshot().problems[0].message.contains("a.yaml cannot be read: No such file"));
    assert!(!files.look());
}

#[test]
fn a_link_that_leads_nowhere_is_told() {
    let mut folder = Folder::new(&[("a.yaml", &service_text("a", 80))]);
    std::os::unix::fs::symlink("nowhere", folder.folder.path().join("b.yaml")).unwrap();
    let (_, snapshot) = folder.look();
    assert!(snapshot.problems[0].message.contains("b.yaml cannot be read"), "{:?}", snapshot.problems);
    assert_eq!(snapshot.services.len(), 1);
}

#[test]
fn of_two_objects_with_one_name_the_later_counts_and_it_is_told() {
    let mut folder = Folder::new(&[("a.yaml", &service_text("a", 80)), ("b.yaml", &service_text("a", 81))]);
    let (_, snapshot) = folder.look();
    let ports = service(&snapshot, "default/a").unwrap().spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert_eq!(ports[0].port, 81);
    let [problem] = &snapshot.problems[..] else { panic!("{:?}", snapshot.problems) };
    assert_eq!((problem.subject.to_string().as_str(), problem.severity), ("Service default/a", Severity::Degraded));
    assert!(problem.message.contains("/a.yaml and in ") && problem.message.contains("/b.yaml"), "{problem:?}");
}

#[test]
fn the_same_file_given_twice_counts_once() {
    let folder = Folder::new(&[("a.yaml", &service_text("a", 80))]);
    let path = folder.folder.path();
    let snapshot = load(&[path.to_path_buf(), path.join("a.yaml")]);
    assert_eq!((snapshot.services.len(), snapshot.problems.len()), (1, 0));
}

#[test]
fn an_ingress_without_a_class_gets_the_default_one_if_exactly_one_is_marked() {
    let class = |name: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: {name}\n  annotations:\n    \
             ingressclass.kubernetes.io/is-default-class: \"true\"\nspec: {{controller: x}}\n"
        )
    };
    let legacy = INGRESS.replace("web", "legacy, annotations: {kubernetes.io/ingress.class: \"\"}");
    let named = format!("{}spec: {{ingressClassName: own}}\n", INGRESS.replace("web", "named"));
    let one = format!("{INGRESS}---\n{legacy}---\n{named}{}", class("main"));
    let mut folder = Folder::new(&[("a.yaml", &one)]);
    let class_of = |snapshot: &Snapshot, name: &str| {
        let spec = snapshot.ingresses[&ObjectName::parse(name).unwrap()].spec.as_ref();
        spec.and_then(|spec| spec.ingress_class_name.clone())
    };
    let (_, snapshot) = folder.look();
    assert_eq!(class_of(&snapshot, "default/web").as_deref(), Some("main"));
    assert_eq!(class_of(&snapshot, "default/legacy"), None);
    assert_eq!(class_of(&snapshot, "default/named").as_deref(), Some("own"));
    assert_eq!(snapshot.problems, []);
    folder.write("a.yaml", &format!("{one}{}", class("second")));
    let (_, snapshot) = folder.look();
    assert_eq!(class_of(&snapshot, "default/web"), None);
    let subjects: Vec<String> = snapshot.problems.iter().map(|p| p.subject.to_string()).collect();
    assert_eq!(subjects, ["IngressClass main", "IngressClass second"]);
}

#[test]
fn a_pipe_is_read_once_and_kept() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::OpenOptions::new().write(true).open(path)?.write_all(service_text("a", 80).as_bytes())
    });
    let mut files = Files::new(vec![path]);
    assert!(files.look());
    writer.join().unwrap().unwrap();
    assert!(!files.look(), "not opened again: that would wait for ever");
    assert_eq!(files.snapshot().services.len(), 1);
}
