//! The chart with Envoy: the stock image, the same agent.

use std::process::Command;

use crate::support::parts;

fn chart(arguments: &[&str]) -> Option<Result<String, String>> {
    let helm = parts::part("helm", "helm")?;
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/coxswain");
    let output = Command::new(helm).args(["template", "c", chart, "--kube-version", "1.33"]).args(arguments).output();
    let output = output.expect("helm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[test]
fn the_kind_decides_image_command_and_flags_and_values_decide_the_image() {
    for (kind, image) in [("nginx", "docker.io/library/nginx:1.30.6"), ("envoy", "docker.io/envoyproxy/envoy:v1.40.0")]
    {
        let Some(text) = chart(&["--set", &format!("proxy.kind={kind}")]) else { return };
        let text = text.unwrap();
        assert!(text.contains(&format!("image: {image}\n")), "{text}");
        assert!(text.contains(&format!("            - --\n            - {kind}\n")), "{text}");
        assert_eq!(text.matches(&format!("- --proxy={kind}\n")).count(), 2, "the controller and the agent");
    }
    let own = "proxy.kind=envoy,proxy.image.repository=own/envoy,proxy.image.tag=v1,proxy.command={/bin/e,-l,info}";
    let text = chart(&["--set", own]).expect("helm was there").unwrap();
    assert!(text.contains("image: own/envoy:v1\n"), "{text}");
    assert!(text.contains("            - --\n            - /bin/e\n            - -l\n            - info\n"), "{text}");
    let wrong = chart(&["--set", "proxy.kind=caddy"]).expect("helm was there").unwrap_err();
    assert!(wrong.contains("must be one of 'nginx', 'envoy'"), "{wrong}");
}
