//! What all writes share: the steps between an object as sent and the transaction that stores it.

use std::sync::LazyLock;

use bytes::Bytes;
use jiff::Timestamp;
use peapod_schema::default;
use peapod_store::{CommitError, Compare, Draft, Key, Txn};
use serde_json::Value;

use super::call::Call;
use super::fields;
use super::query::WriteOptions;
use crate::admission::{Attributes, Operation, quota};
use crate::api::Api;
use crate::auth::user::{MASTERS, User};
use crate::pools::addresses;
use crate::registry::claims::{CLUSTER_IP, Claim};
use crate::registry::{FieldErrors, Resource, object_meta, value};
use crate::remarks;
use crate::status::{Result, Status};
use crate::storage::{self, Meta};

/// How often a write that lost a race begins anew.
pub const ATTEMPTS: usize = 32;

/// A write: who writes what, where.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// The shared state.
    pub api: &'a Api,
    /// Who writes.
    pub user: &'a User,
    /// The kind.
    pub resource: &'a Resource,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The name; empty while it is to be generated.
    pub name: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// The options.
    pub options: &'a WriteOptions,
    /// Who owns the fields that are written.
    pub manager: &'a str,
    /// Whether this write is an apply, which tracks owners itself.
    pub apply: bool,
}

/// What became of a write.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The object as stored (or, in a dry run, as it would be).
    pub bytes: Bytes,
    /// Whether the write deleted it: its last finalizer went.
    pub deleted: bool,
    /// What the client should know of the object, as the kind says.
    pub warnings: Vec<String>,
}

// === impl Write ===

/// This server itself, as the author of what it keeps.
static SERVER: LazyLock<User> =
    LazyLock::new(|| User::authenticated("system:apiserver", [MASTERS]));
static DEFAULTS: LazyLock<WriteOptions> = LazyLock::new(WriteOptions::default);

impl<'a> Write<'a> {
    /// What a client asks for by the name in its path.
    pub fn asked(
        api: &'a Api,
        call: &'a Call,
        options: &'a WriteOptions,
        manager: &'a str,
    ) -> Self {
        Self {
            api,
            user: &call.user,
            resource: &call.resource,
            namespace: &call.target.namespace,
            name: &call.target.name,
            subresource: &call.target.subresource,
            options,
            manager,
            apply: false,
        }
    }

    /// What this server does by itself.
    pub fn by_server(
        api: &'a Api,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
    ) -> Self {
        Self {
            api,
            user: &SERVER,
            resource,
            namespace,
            name,
            subresource: "",
            options: &DEFAULTS,
            manager: "kube-apiserver",
            apply: false,
        }
    }
}

impl Write<'_> {
    /// Where the object lies.
    pub fn key(&self, name: &str) -> Result<Key> {
        storage::key(&self.resource.kind, self.namespace, name)
    }

    /// 404
    pub fn not_found(&self) -> Status {
        Status::not_found(self.resource.kind.group_resource(), self.name)
    }

    /// 409 against an older version.
    pub fn modified(&self) -> Status {
        Status::modified(self.resource.kind.group_resource(), self.name)
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        default::default(object, &self.resource.schema);
        self.resource.kind.rules.defaults(object);
    }

    /// Runs mutating admission.
    pub async fn admit(
        &self,
        operation: Operation,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<()> {
        let attributes = self.attributes(operation, old);
        let admission = &self.api.admission;
        admission.mutate(self.api, &attributes, object).await?;
        dedup_owners(object, " after mutating admission happens");
        Ok(())
    }

    /// Runs validating admission.
    pub async fn judge(
        &self,
        operation: Operation,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<()> {
        let attributes = self.attributes(operation, old);
        self.api
            .admission
            .validate(self.api, &attributes, object)
            .await
    }

    fn attributes<'a>(&'a self, operation: Operation, old: Option<&'a Value>) -> Attributes<'a> {
        Attributes {
            operation,
            resource: self.resource,
            namespace: self.namespace,
            name: self.name,
            subresource: self.subresource,
            user: self.user,
            old,
            dry_run: self.options.dry_run,
        }
    }

    /// 422 when there are faults.
    pub fn settle(&self, object: &Value, errors: FieldErrors) -> Result<()> {
        if errors.is_empty() {
            return Ok(());
        }
        let kind = &self.resource.kind;
        let name = value::text(object, "metadata.name");
        Err(Status::invalid(&kind.group, &kind.kind, name, &errors))
    }

    /// Allocates what is missing and checks a new object.
    pub fn validate_new(&self, object: &mut Value) -> Result<()> {
        let mut errors = FieldErrors::new();
        let rules = &self.resource.kind.rules;
        let mut pools = self.api.pools();
        rules.allocate(object, None, &mut pools, &mut errors);
        object_meta::validate(self.resource, object, &mut errors);
        rules.validate_against(object, None, &mut errors);
        self.settle(object, errors)?;
        self.warn_of_finalizers(object, None);
        Ok(())
    }

    /// Of custom resources only, as upstream: others' finalizers are the API's.
    fn warn_of_finalizers(&self, new: &Value, old: Option<&Value>) {
        if self.resource.kind.custom {
            let warnings = object_meta::finalizer_warnings(new, old);
            warnings.into_iter().for_each(remarks::warn);
        }
    }

    /// Allocates what is missing and checks an update.
    pub fn validate_update(&self, new: &mut Value, old: &Value) -> Result<()> {
        let mut errors = FieldErrors::new();
        let rules = &self.resource.kind.rules;
        object_meta::validate(self.resource, new, &mut errors);
        object_meta::validate_update(new, old, &mut errors);
        self.warn_of_finalizers(new, Some(old));
        if self.subresource == "status" {
            rules.validate_status(new, old, &mut errors);
            return self.settle(new, errors);
        }
        if self.subresource == "approval" {
            rules.validate_approval(new, old, &mut errors);
            return self.settle(new, errors);
        }
        let mut pools = self.api.pools();
        rules.allocate(new, Some(old), &mut pools, &mut errors);
        rules.validate_against(new, Some(old), &mut errors);
        // What a client may not change, a subresource is there to change.
        match self.subresource {
            "" | "scale" => rules.validate_update(new, old, &mut errors),
            part => rules.validate_part(part, new, old, &mut errors),
        }
        self.settle(new, errors)
    }

    /// Records who owns the fields that this write set.
    pub fn track(&self, new: &mut Value, old: Option<&Value>, now: Timestamp) {
        if !self.apply {
            fields::track(self, new, old, now);
        }
    }

    /// The encoded object, of which only the revision is missing.
    pub fn draft(&self, object: &Value) -> Result<Draft> {
        if self.resource.kind.stored_as.is_none() {
            return storage::draft(object).map_err(Status::internal);
        }
        let mut stored = object.clone();
        let rules = &self.resource.kind.rules;
        rules.store(&mut stored).map_err(Status::internal)?;
        storage::draft(&stored).map_err(Status::internal)
    }

    /// Adds to a transaction what the object claims and the old one did not, and releases what
    /// only the old one claimed; charges the quotas of the namespace.
    pub fn claim(&self, mut txn: Txn, new: Option<&Value>, old: Option<&Value>) -> Result<Txn> {
        let rules = &self.resource.kind.rules;
        let claims = |object: Option<&Value>| object.map_or(Vec::new(), |o| rules.claims(o));
        let (held, wanted) = (claims(old), claims(new));
        for claim in wanted.iter().filter(|claim| !held.contains(claim)) {
            let object = new.unwrap_or(&Value::Null);
            let owner = Draft::plain(self.owner(object));
            txn = txn.put(claim_key(claim)?, Compare::Absent, owner);
            if claim.pool == CLUSTER_IP {
                let holder = (self.namespace, value::text(object, "metadata.name"));
                txn = addresses::hold(self.api, txn, &claim.item, holder)?;
            }
        }
        for claim in held.iter().filter(|claim| !wanted.contains(claim)) {
            txn = txn.delete(claim_key(claim)?, Compare::Any);
            if claim.pool == CLUSTER_IP {
                txn = addresses::release(self.api, txn, &claim.item);
            }
        }
        quota::charge(self, txn, new, old)
    }

    fn owner(&self, object: &Value) -> String {
        let kind = &self.resource.kind;
        serde_json::json!({
            "kind": kind.kind,
            "namespace": self.namespace,
            "name": value::text(object, "metadata.name"),
            "uid": value::text(object, "metadata.uid"),
        })
        .to_string()
    }
}

/// Takes away owner references that stand there twice, with a warning that says when.
pub fn dedup_owners(object: &mut Value, when: &str) {
    let gone = object_meta::dedup_owners(object);
    if !gone.is_empty() {
        remarks::warn(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            gone.join(", ")
        ));
    }
}

/// Where a claim lies.
pub fn claim_key(claim: &Claim) -> Result<Key> {
    Key::new(format!("/claims/{}/{}", claim.pool, claim.item))
        .map_err(|fault| Status::internal(fault.to_string()))
}

/// What a failed commit means, when it was no lost race.
pub fn commit_failed(fault: CommitError<Meta>) -> Status {
    match fault {
        CommitError::Bad(bad) => Status::bad_request(bad.to_string()),
        CommitError::Conflict { key, .. } => {
            Status::internal(format!("{key} keeps changing; try again"))
        }
        CommitError::Unavailable(why) => {
            Status::insufficient_storage(format!("the store takes no writes: {why}"))
        }
        CommitError::TooLarge(why) => Status::too_large_for_store(&why),
        // Without a time to try again after: clients would repeat what may have happened.
        CommitError::Unknown(why) => Status::timeout(format!(
            "the outcome of the write is unknown: {why}; read before you write again"
        )),
        CommitError::Closed => Status::unavailable("the server is shutting down"),
    }
}
