//! Families and roles by name, BFD by `true`, as a configuration has them.

/// A list of address families: `ipv4-unicast`, `ipv6-unicast`.
pub(super) mod families {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::types::Family;

    pub fn serialize<S: Serializer>(families: &[Family], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(families.iter().map(Family::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Family>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names
            .iter()
            .map(|name| parse(name).map_err(serde::de::Error::custom))
            .collect()
    }

    fn parse(name: &str) -> Result<Family, String> {
        let known = Family::SUPPORTED
            .into_iter()
            .find(|family| family.to_string() == name);
        known.ok_or_else(|| format!("`{name}` is no family: use ipv4-unicast or ipv6-unicast"))
    }
}

/// A role (RFC 9234).
pub(super) mod role {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::types::Role;

    pub fn serialize<S: Serializer>(role: &Option<Role>, to: S) -> Result<S::Ok, S::Error> {
        match role {
            Some(role) => to.collect_str(role),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Role>, D::Error> {
        let Some(name) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let known = Role::REGISTERED
            .iter()
            .find(|role| role.to_string() == name);
        known.copied().map(Some).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{name}` is no role: use provider, customer, peer, rs-server or rs-client"
            ))
        })
    }
}

/// BFD: `true`, `false`, or its settings.
pub(super) mod bfd {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::config::Bfd;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Switch(bool),
        Settings(Bfd),
    }

    pub fn serialize<S: Serializer>(bfd: &Option<Bfd>, to: S) -> Result<S::Ok, S::Error> {
        bfd.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bfd>, D::Error> {
        Ok(match Given::deserialize(from)? {
            Given::Switch(on) => on.then(Bfd::default),
            Given::Settings(settings) => Some(settings),
        })
    }
}
