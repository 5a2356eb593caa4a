//! What a definition may say: names, versions, columns, subresources, conversion. Its schemas
//! are [`super::structural`]'s.

use std::collections::BTreeSet;

use peapod_api::names;
use peapod_schema::custom::{JsonType, Structural};
use serde_json::Value;

use super::structural;
use crate::registry::json_path::JsonPath;
use crate::registry::{At, FieldError, FieldErrors, value};

/// Most selectable fields of a version, as upstream.
const SELECTABLE_MAX: usize = 8;
/// What definitions of Kubernetes' own groups must have.
const APPROVAL: &str = "api-approved.kubernetes.io";

/// Checks a definition on create and update.
pub fn definition(object: &Value, errors: &mut FieldErrors) {
    let root = At::root(object);
    let spec = root.at("spec");
    let (plural, group) = (spec.at("names.plural"), spec.at("group"));
    let name = root.at("metadata.name");
    if name.text() != format!("{}.{}", plural.text(), group.text()) {
        name.invalid(errors, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.required(errors) {
        group.follows(errors, names::dns_subdomain);
        if !group.text().contains('.') {
            group.invalid(errors, "should be a domain with at least one dot");
        }
    }
    approval(&root, group.text(), errors);
    spec.at("scope")
        .require_one_of(errors, &["Cluster", "Namespaced"]);
    if spec.at("preserveUnknownFields").is_true() {
        spec.at("preserveUnknownFields").invalid(
            errors,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
    kind_names(&spec.at("names"), errors);
    versions(&spec.at("versions"), errors);
    conversion(&spec, errors);
    stored_versions(object, errors);
}

/// Checks what may not change once the definition is established.
pub fn update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let root = At::root(new);
    root.at("spec.group").unchanged(old, errors);
    root.at("spec.names.plural").unchanged(old, errors);
    if super::is_true(old, "Established") {
        root.at("spec.scope").unchanged(old, errors);
        root.at("spec.names.kind").unchanged(old, errors);
    }
}

/// Checks that what is stored can be read.
pub fn stored_versions(object: &Value, errors: &mut FieldErrors) {
    let stored = value::list(object, "status.storedVersions");
    if stored.is_empty() {
        return;
    }
    let storage = super::storage_version(object);
    if !stored.iter().any(|one| one == storage) {
        let why = format!("must have the storage version {storage}");
        errors.push(FieldError::invalid(
            "status.storedVersions",
            stored.to_vec(),
            why,
        ));
    }
    let versions = value::list(object, "spec.versions");
    for (index, one) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *one) {
            let path = format!("status.storedVersions[{index}]");
            errors.push(FieldError::invalid(
                path,
                one.clone(),
                "must appear in spec.versions",
            ));
        }
    }
}

fn approval(root: &At<'_>, group: &str, errors: &mut FieldErrors) {
    let owned = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    let protected = owned("k8s.io") || owned("kubernetes.io");
    let annotations = root.at("metadata.annotations");
    if protected && annotations.value().get(APPROVAL).is_none() {
        errors.push(FieldError::required(
            format!("metadata.annotations[{APPROVAL}]"),
            format!("protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"),
        ));
    }
}

fn kind_names(all: &At<'_>, errors: &mut FieldErrors) {
    all.at("plural").require_name(errors, names::dns_1035_label);
    all.at("singular").follows(errors, names::dns_1035_label);
    all.at("kind").required(errors);
    for field in ["kind", "listKind"] {
        let at = all.at(field);
        if !at.is_empty()
            && let Err(fault) = names::dns_1035_label(&at.text().to_lowercase())
        {
            at.invalid(
                errors,
                format!("may have mixed case, but should otherwise match: {fault}"),
            );
        }
    }
    for field in ["shortNames", "categories"] {
        for name in all.at(field).items() {
            name.follows(errors, names::dns_1035_label);
        }
    }
    let list = all.at("listKind");
    if !list.is_empty() && list.text() == all.at("kind").text() {
        list.invalid(errors, "kind and listKind may not be the same");
    }
}

fn versions(all: &At<'_>, errors: &mut FieldErrors) {
    if !all.required(errors) {
        return;
    }
    let mut seen = BTreeSet::new();
    let mut stored = 0;
    // Where all versions have the same schema, upstream speaks of it once.
    let same = |field: &str| {
        let mut items = value_list(all).iter().map(|version| version.get(field));
        let first = items.next();
        items.all(|one| Some(one) == first)
    };
    let (schemas, columns, subresources) = (
        same("schema"),
        same("additionalPrinterColumns"),
        same("subresources"),
    );
    for (index, version) in all.items().enumerate() {
        let name = version.at("name");
        name.require_name(errors, names::dns_1035_label);
        if !seen.insert(name.text().to_owned()) {
            all.invalid(errors, "must contain unique version names");
        }
        stored += usize::from(version.at("storage").is_true());
        let warning = version.at("deprecationWarning");
        if warning.is_set() && !version.at("deprecated").is_true() {
            warning.invalid(errors, "can only be set for deprecated versions");
        }
        let at = |once: bool, single: &str, field: &str| match once {
            true => format!("spec.{single}"),
            false => format!("spec.versions[{index}].{field}"),
        };
        if !(schemas && index > 0) {
            schema(&version, &at(schemas, "validation", "schema"), errors);
        }
        if !(columns && index > 0) {
            printer_columns(
                &version,
                &at(
                    columns,
                    "additionalPrinterColumns",
                    "additionalPrinterColumns",
                ),
                errors,
            );
        }
        if !(subresources && index > 0) {
            scale(
                &version,
                &at(subresources, "subresources", "subresources"),
                errors,
            );
        }
        selectable(&version, errors);
    }
    if stored != 1 {
        all.invalid(
            errors,
            "must have exactly one version marked as storage version",
        );
    }
}

fn value_list<'a>(at: &At<'a>) -> &'a [Value] {
    at.value().as_array().map_or(&[], Vec::as_slice)
}

fn schema(version: &At<'_>, path: &str, errors: &mut FieldErrors) {
    let document = version.at("schema.openAPIV3Schema");
    if !document.value().is_object() {
        let path = format!("{}.schema.openAPIV3Schema", version);
        return errors.push(FieldError::required(path, "schemas are required"));
    }
    structural::check(document.value(), &format!("{path}.openAPIV3Schema"), errors);
}

fn printer_columns(version: &At<'_>, path: &str, errors: &mut FieldErrors) {
    for (index, column) in version.at("additionalPrinterColumns").items().enumerate() {
        let at = |field: &str| format!("{path}[{index}].{field}");
        if column.at("name").is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let kinds = ["boolean", "date", "integer", "number", "string"];
        match column.at("type").text() {
            "" => errors.push(FieldError::required(
                at("type"),
                format!("must be one of {}", kinds.join(",")),
            )),
            kind if kinds.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(
                at("type"),
                kind,
                format!("must be one of {}", kinds.join(",")),
            )),
        }
        let formats = [
            "byte",
            "date",
            "date-time",
            "double",
            "float",
            "int32",
            "int64",
            "password",
        ];
        let format = column.at("format");
        if !format.is_empty() && !formats.contains(&format.text()) {
            let why = format!("must be one of {}", formats.join(","));
            errors.push(FieldError::invalid(at("format"), format.text(), why));
        }
        match column.at("jsonPath").text() {
            "" => errors.push(FieldError::required(at("jsonPath"), "")),
            text => {
                if let Err(fault) = JsonPath::parse(text) {
                    errors.push(FieldError::invalid(
                        at("jsonPath"),
                        text,
                        format!("{fault}"),
                    ));
                }
            }
        }
    }
}

fn scale(version: &At<'_>, path: &str, errors: &mut FieldErrors) {
    let scale = version.at("subresources.scale");
    if !scale.is_set() {
        return;
    }
    for (field, below, required) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."], true),
        ("labelSelectorPath", &[".spec.", ".status."], false),
    ] {
        let given = scale.at(field);
        let place = format!("{path}.scale.{field}");
        if given.is_empty() {
            if required {
                errors.push(FieldError::required(place, ""));
            }
            continue;
        }
        let parsed = JsonPath::parse(given.text());
        let simple = parsed.as_ref().is_ok_and(|path| path.fields().is_some());
        if !simple {
            let why = "should be a json path without array notation";
            errors.push(FieldError::invalid(place, given.text(), why));
        } else if !below.iter().any(|prefix| given.text().starts_with(prefix)) {
            let places: Vec<&str> = below
                .iter()
                .map(|place| place.trim_end_matches('.'))
                .collect();
            let why = match places[..] {
                [only] => format!("should be a json path under {only}"),
                _ => format!("should be a json path under either {}", places.join(" or ")),
            };
            errors.push(FieldError::invalid(place, given.text(), why));
        }
    }
}

fn selectable(version: &At<'_>, errors: &mut FieldErrors) {
    let fields = version.at("selectableFields");
    let count = value_list(&fields).len();
    if count > SELECTABLE_MAX {
        errors.push(FieldError::too_many(fields, count, SELECTABLE_MAX));
    }
    let schema = Structural::of(&version.value()["schema"]["openAPIV3Schema"]);
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.at("jsonPath");
        if !path.required(errors) {
            continue;
        }
        let parsed = JsonPath::parse(path.text()).ok();
        let Some(names) = parsed.as_ref().and_then(JsonPath::fields) else {
            path.invalid(
                errors,
                "is an invalid path: does not refer to a valid field",
            );
            continue;
        };
        if names.first() == Some(&"metadata") {
            path.invalid(errors, "must not point to fields in metadata");
            continue;
        }
        let found = names
            .iter()
            .try_fold(&schema, |schema, name| schema.properties.get(*name));
        match found.and_then(|schema| schema.ty) {
            Some(JsonType::String | JsonType::Integer | JsonType::Boolean) => {}
            Some(_) => path.invalid(errors, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."),
            None => path.invalid(errors, "is an invalid path: does not refer to a valid field"),
        }
        if !seen.insert(path.text().to_owned()) {
            path.duplicate(errors);
        }
    }
}

fn conversion(spec: &At<'_>, errors: &mut FieldErrors) {
    let conversion = spec.at("conversion");
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.at("strategy");
    strategy.require_one_of(errors, &["None", "Webhook"]);
    let webhook = conversion.at("webhook");
    if strategy.text() != "Webhook" {
        if webhook.is_set() {
            webhook.forbidden(
                errors,
                "should not be set when strategy is not set to Webhook",
            );
        }
        return;
    }
    let config = webhook.at("clientConfig");
    if !config.is_set() {
        config.missing(errors, "required when strategy is set to Webhook");
    } else if config.at("url").is_set() == config.at("service").is_set() {
        config.missing(errors, "exactly one of url or service is required");
    }
    let reviews = webhook.at("conversionReviewVersions");
    if reviews.required(errors) && !value_list(&reviews).iter().any(|version| version == "v1") {
        let why = "must include at least one of v1, v1beta1";
        reviews.invalid(errors, why);
    }
}
