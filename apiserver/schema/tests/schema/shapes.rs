//! Decoding, checking and defaulting, on the built-in kinds.

use std::sync::Arc;

use peapod_schema::{FieldValidation, Schema, builtin, check, decode, default};
use serde_json::{Value, json};

fn canonical(text: &str) -> Result<String, String> {
    match text {
        "0.5" => Ok("500m".to_owned()),
        "?" => Err("quantities must match the regular expression".to_owned()),
        other => Ok(other.to_owned()),
    }
}

fn schema(name: &str) -> Schema {
    Schema::named(&Arc::new(builtin::graph(canonical)), name).unwrap()
}

fn checked(name: &str, mut value: Value) -> Result<(Value, Vec<String>), String> {
    let faults = check::check(&mut value, &schema(name)).map_err(|e| e.to_string())?;
    Ok((value, faults))
}

#[test]
fn duplicates_are_noted_and_the_last_wins() {
    let body = br#"{"spec":{"replicas":1,"replicas":2},"list":[{"a":1,"a":2}]}"#;
    let decoded = decode::json(body).unwrap();
    assert_eq!(decoded.value["spec"]["replicas"], 2);
    assert_eq!(
        decoded.faults,
        [
            "duplicate field \"spec.replicas\"",
            "duplicate field \"list[0].a\""
        ]
    );
}

#[test]
fn yaml_reads_as_the_same_value() {
    let text = b"kind: Pod\nspec:\n  containers:\n  - name: a\n    args: [\"1\", 'yes']\n    tty: true\n  terminationGracePeriodSeconds: 0\n";
    assert_eq!(
        decode::yaml(text).unwrap().value,
        json!({"kind": "Pod", "spec": {
            "containers": [{"name": "a", "args": ["1", "yes"], "tty": true}],
            "terminationGracePeriodSeconds": 0}})
    );
    let twice = decode::yaml(b"a: 1\na: 2\n").unwrap();
    assert_eq!(twice.faults, ["duplicate field \"a\""]);
}

#[test]
fn malformed_bodies_are_errors() {
    for body in ["", "{", "{\"a\":}", "[1,]", "nul", "{} x"] {
        assert!(decode::json(body.as_bytes()).is_err(), "{body}");
    }
    for body in ["a: [", "a: b: c", "{a"] {
        assert!(decode::yaml(body.as_bytes()).is_err(), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert!(decode::json(deep.as_bytes()).is_err());
    assert!(decode::yaml(deep.as_bytes()).is_err());
    assert!(decode::yaml(b"\xff\xfe\xfd").is_err());
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", [before.as_str(); 9].join(","));
    }
    assert!(decode::yaml(text.as_bytes()).is_err());
}

#[test]
fn unknown_fields_are_dropped_and_noted() {
    let given =
        json!({"kind": "Pod", "spec": {"containers": [{"name": "a", "imagee": "x"}], "x": 1}});
    let (value, faults) = checked("core.v1.Pod", given).unwrap();
    assert_eq!(
        value,
        json!({"kind": "Pod", "spec": {"containers": [{"name": "a"}]}})
    );
    let expected = [
        "unknown field \"spec.containers[0].imagee\"",
        "unknown field \"spec.x\"",
    ];
    assert_eq!(faults, expected);
    let strict = FieldValidation::Strict.settle(faults.clone()).unwrap_err();
    assert_eq!(
        strict.to_string(),
        format!("strict decoding error: {}, {}", expected[0], expected[1])
    );
    assert_eq!(
        FieldValidation::Warn.settle(faults.clone()).unwrap(),
        faults
    );
    assert!(FieldValidation::Ignore.settle(faults).unwrap().is_empty());
}

#[test]
fn wrong_types_are_told_as_by_gos_decoder() {
    let deployment =
        |spec: Value| checked("apps.v1.Deployment", json!({"spec": spec})).unwrap_err();
    let container = |c: Value| deployment(json!({"template": {"spec": {"containers": [c]}}}));
    for (told, expected) in [
        (
            deployment(json!({"replicas": "3"})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            deployment(json!({"replicas": 1.5})),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            container(json!({"env": [{"name": "a", "value": 1}]})),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            container(json!({"env": {}})),
            "json: cannot unmarshal object into Go struct field Container.spec.template.spec.containers.env of type []v1.EnvVar",
        ),
    ] {
        assert_eq!(told, expected);
    }
    let not_an_object = checked("core.v1.Pod", json!([1])).unwrap_err();
    assert_eq!(
        not_an_object,
        "json: cannot unmarshal array into Go value of type v1.Pod"
    );
    let secret = checked("core.v1.Secret", json!({"data": {"a": "%"}})).unwrap_err();
    assert_eq!(secret, "illegal base64 data at input byte 0");
}

#[test]
fn nulls_and_canonical_forms() {
    let given = json!({
        "metadata": {"name": null, "labels": {"a": null}, "creationTimestamp": "2026-01-02T04:04:05.5+01:00"},
        "spec": {"containers": [{"name": "a", "args": [null, "x"],
                 "resources": {"requests": {"cpu": 0.5, "memory": "1Gi"}}}]},
    });
    let (value, faults) = checked("core.v1.Pod", given).unwrap();
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        value,
        json!({
            "metadata": {"labels": {"a": ""}, "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"containers": [{"name": "a", "args": ["", "x"],
                     "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]},
        })
    );
}

#[test]
fn defaults_and_required_fields_are_filled() {
    let mut value = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "a", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}]}}}});
    default::default(&mut value, &schema("apps.v1.Deployment"));
    assert_eq!(
        value,
        json!({
            "spec": {
                "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate"},
                "template": {"metadata": {}, "spec": {
                    "containers": [{
                        "name": "a", "resources": {},
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "livenessProbe": {
                            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                            "timeoutSeconds": 1, "periodSeconds": 10,
                            "successThreshold": 1, "failureThreshold": 3},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File"}],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                    "schedulerName": "default-scheduler", "securityContext": {},
                    "terminationGracePeriodSeconds": 30}}},
            "status": {},
        })
    );
}
