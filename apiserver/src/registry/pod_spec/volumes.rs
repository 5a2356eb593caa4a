//! Volumes: each has one source, and each source what it needs.

use std::collections::BTreeSet;

use peapod_api::names;

use super::containers::relative_path;
use super::env;
use crate::registry::at::At;
use crate::registry::checks;
use crate::registry::field_error::FieldErrors;

const MODE_RULE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Checks the volumes of a specification.
pub(super) fn validate(volumes: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = BTreeSet::new();
    for volume in volumes.items() {
        let name = volume.at("name");
        name.require_name(errors, names::dns_label);
        if !name.is_empty() && !taken.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        validate_one(&volume, errors);
    }
}

fn validate_one(volume: &At<'_>, errors: &mut FieldErrors) {
    let mut found = false;
    let fields = volume.value().as_object().into_iter().flatten();
    for (field, value) in fields {
        if field == "name" || value.is_null() {
            continue;
        }
        let source = volume.at(field);
        if found {
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        validate_source(field, &source, errors);
    }
    if !found {
        volume.missing(errors, "must specify a volume type");
    }
}

fn validate_source(kind: &str, source: &At<'_>, errors: &mut FieldErrors) {
    match kind {
        "emptyDir" => checks::quantity_not_negative(&source.at("sizeLimit"), errors),
        "hostPath" => host_path(source, errors),
        "configMap" => {
            source.at("name").required(errors);
            files(source, errors);
        }
        "secret" => {
            source.at("secretName").required(errors);
            files(source, errors);
        }
        "downwardAPI" => {
            mode(&source.at("defaultMode"), errors);
            source
                .at("items")
                .items()
                .for_each(|item| downward_file(&item, errors));
        }
        "projected" => projected(source, errors),
        "persistentVolumeClaim" => {
            source.at("claimName").required(errors);
        }
        "ephemeral" => {
            source.at("volumeClaimTemplate").required(errors);
        }
        "nfs" => {
            source.at("server").required(errors);
            source.at("path").required(errors);
        }
        "csi" => {
            source.at("driver").required(errors);
        }
        "image" => {
            source.at("reference").required(errors);
            let policies = ["Always", "IfNotPresent", "Never"];
            source.at("pullPolicy").one_of(errors, &policies);
        }
        _ => {}
    }
}

/// Checks a directory or file of the node.
pub(crate) fn host_path(source: &At<'_>, errors: &mut FieldErrors) {
    let path = source.at("path");
    if path.required(errors) && path.text().split('/').any(|part| part == "..") {
        path.invalid(errors, "must not contain '..'");
    }
    source.at("type").one_of(errors, HOST_PATH_TYPES);
}

fn mode(mode: &At<'_>, errors: &mut FieldErrors) {
    if mode.int().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        mode.invalid(errors, MODE_RULE);
    }
}

/// Checks the keys of a ConfigMap or Secret that become files.
fn files(source: &At<'_>, errors: &mut FieldErrors) {
    mode(&source.at("defaultMode"), errors);
    for item in source.at("items").items() {
        item.at("key").required(errors);
        file_path(&item.at("path"), errors);
        mode(&item.at("mode"), errors);
    }
}

fn file_path(path: &At<'_>, errors: &mut FieldErrors) {
    if path.required(errors) {
        relative_path(path, errors);
        if path.text().starts_with("..") {
            path.invalid(errors, "must not start with '..'");
        }
    }
}

fn downward_file(item: &At<'_>, errors: &mut FieldErrors) {
    file_path(&item.at("path"), errors);
    mode(&item.at("mode"), errors);
    let (field, resource) = (item.at("fieldRef"), item.at("resourceFieldRef"));
    match (field.is_set(), resource.is_set()) {
        (true, true) => {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            item.invalid(errors, why);
        }
        (false, false) => {
            item.missing(errors, "one of fieldRef and resourceFieldRef is required");
        }
        _ => {}
    }
    env::field_reference(&field, DOWNWARD_FIELDS, errors);
    if resource.is_set() {
        resource.at("containerName").required(errors);
    }
    env::resource_reference(&resource, errors);
}

fn projected(volume: &At<'_>, errors: &mut FieldErrors) {
    mode(&volume.at("defaultMode"), errors);
    for source in volume.at("sources").items() {
        let kinds = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
        let mut found =
            source.at("clusterTrustBundle").is_set() || source.at("podCertificate").is_set();
        for kind in kinds {
            let part = source.at(kind);
            if !part.is_set() {
                continue;
            }
            if found {
                let why = "may not specify more than 1 volume type per source";
                part.forbidden(errors, why);
            }
            found = true;
            projection(kind, &part, errors);
        }
        if !found {
            source.missing(errors, "must specify a volume source type");
        }
    }
}

fn projection(kind: &str, part: &At<'_>, errors: &mut FieldErrors) {
    match kind {
        "downwardAPI" => part
            .at("items")
            .items()
            .for_each(|item| downward_file(&item, errors)),
        "serviceAccountToken" => {
            let seconds = part.at("expirationSeconds");
            if seconds.int().is_some_and(|seconds| seconds < 600) {
                seconds.invalid(errors, "may not specify a duration less than 10 minutes");
            }
            if seconds.int().is_some_and(|seconds| seconds > 1 << 32) {
                seconds.invalid(
                    errors,
                    "may not specify a duration larger than 2^32 seconds",
                );
            }
            file_path(&part.at("path"), errors);
        }
        _ => {
            part.at("name").required(errors);
            files(part, errors);
        }
    }
}
