//! `v1 ServiceAccount`

use crate::registry::{Column, Kind, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
        .short_names(&["sa"])
        .subresource(crate::registry::Subresource::Token)
        .columns(vec![
            Column::name(),
            Column::computed("Secrets", "string", |account, _| {
                value::list(account, "secrets").len().to_string().into()
            }),
            Column::age(),
        ])
}
