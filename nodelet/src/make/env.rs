//! A container's environment, from all the places that it may come from.

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service,
};
use peapod_api::k8s_openapi;

use super::expand::expand;
use super::fields::{self, Place};
use super::{Missing, service_env};
use crate::core::find_container;

/// Finds what variables refer to, in the pod's namespace.
pub trait Lookup {
    /// A ConfigMap, if there is one of that name.
    fn config_map(&self, name: &str) -> Option<&ConfigMap>;
    /// A Secret, if there is one of that name.
    fn secret(&self, name: &str) -> Option<&Secret>;
}

/// The environment in order; the last of a name wins.
pub fn build(
    pod: &Pod,
    container: &Container,
    services: &[Service],
    lookup: &dyn Lookup,
    place: &Place,
) -> Result<Vec<(String, String)>, Missing> {
    let mut env = service_env::variables(services.iter());
    from_sources(pod, container, lookup, &mut env)?;
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, var, &env, lookup, place)? {
            env.push((var.name.clone(), value));
        }
    }
    Ok(env)
}

/// `envFrom`
fn from_sources(
    pod: &Pod,
    container: &Container,
    lookup: &dyn Lookup,
    env: &mut Vec<(String, String)>,
) -> Result<(), Missing> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match lookup.config_map(&reference.name) {
                Some(map) => {
                    let data = map.data.iter().flatten();
                    env.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(absent("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match lookup.secret(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.push((format!("{prefix}{key}"), text(pod, key, &value.0)?));
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(absent("secret", &reference.name)),
            }
        }
    }
    Ok(())
}

fn value_of(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    env: &[(String, String)],
    lookup: &dyn Lookup,
    place: &Place,
) -> Result<Option<String>, Missing> {
    let Some(source) = &var.value_from else {
        let raw = var.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(raw, |name| {
            env.iter()
                .rev()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        })));
    };
    from_ref(pod, container, source, lookup, place)
}

fn from_ref(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    lookup: &dyn Lookup,
    place: &Place,
) -> Result<Option<String>, Missing> {
    if let Some(field) = &source.field_ref {
        return fields::field(pod, &field.field_path, place).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        let name = selector.container_name.as_deref().unwrap_or_default();
        let other = find_container(pod, name);
        let of = if name.is_empty() {
            container
        } else {
            other.as_deref().unwrap_or(container)
        };
        return fields::resource(of, selector, place).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = lookup.config_map(&key.name);
        let value = map
            .and_then(|map| map.data.as_ref()?.get(&key.key))
            .cloned();
        return present(
            pod,
            value,
            map.is_some(),
            key.optional,
            ["ConfigMap", &key.name, &key.key],
        );
    }
    if let Some(key) = &source.secret_key_ref {
        let secret = lookup.secret(&key.name);
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&key.key));
        let value = value
            .map(|bytes| text(pod, &key.key, &bytes.0))
            .transpose()?;
        return present(
            pod,
            value,
            secret.is_some(),
            key.optional,
            ["Secret", &key.name, &key.key],
        );
    }
    Ok(None)
}

/// The value, nothing if it may be absent, or upstream's sentence for its absence.
fn present(
    pod: &Pod,
    value: Option<String>,
    object_exists: bool,
    optional: Option<bool>,
    [kind, name, key]: [&str; 3],
) -> Result<Option<String>, Missing> {
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if !object_exists => Err(absent(&kind.to_lowercase(), name)),
        None => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            Err(Missing(format!(
                "couldn't find key {key} in {kind} {namespace}/{name}"
            )))
        }
    }
}

fn absent(kind: &str, name: &str) -> Missing {
    Missing(format!("{kind} \"{name}\" not found"))
}

/// A secret's bytes as a variable's value, which cannot hold everything.
fn text(pod: &Pod, key: &str, bytes: &[u8]) -> Result<String, Missing> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Missing(format!(
            "key {key} is not UTF-8 and cannot be a variable of pod {name}: mount it as a volume"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Objects(ConfigMap, Secret);

    impl Lookup for Objects {
        fn config_map(&self, name: &str) -> Option<&ConfigMap> {
            (self.0.metadata.name.as_deref() == Some(name)).then_some(&self.0)
        }
        fn secret(&self, name: &str) -> Option<&Secret> {
            (self.1.metadata.name.as_deref() == Some(name)).then_some(&self.1)
        }
    }

    fn env(container: serde_json::Value) -> Result<String, Missing> {
        let config = json!({"metadata": {"name": "cm"}, "data": {"mode": "fast", "size": "2"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"pass": "aHVudGVy"}});
        let objects = Objects(
            serde_json::from_value(config).unwrap(),
            serde_json::from_value(secret).unwrap(),
        );
        let pod = json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let all = build(&pod, container, &[], &objects, &Place::default())?;
        Ok(all
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn every_source() {
        let container = json!({"name": "app",
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "cm"}}],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(C_mode)-$(NONE)"},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "size"}}},
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pass"}}},
            {"name": "O", "valueFrom": {"secretKeyRef":
                {"name": "none", "key": "x", "optional": true}}},
        ]});
        assert_eq!(
            env(container).unwrap(),
            "C_mode=fast C_size=2 A=1 B=1-fast-$(NONE) N=web K=2 P=hunter"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = |kind: &str, name: &str| {
            let source = json!({kind: {"name": name, "key": "x"}});
            let container = json!({"name": "app", "env": [{"name": "A", "valueFrom": source}]});
            env(container).unwrap_err().to_string()
        };
        assert_eq!(
            key("configMapKeyRef", "cm"),
            "couldn't find key x in ConfigMap ns/cm"
        );
        assert_eq!(key("secretKeyRef", "none"), "secret \"none\" not found");
    }
}
