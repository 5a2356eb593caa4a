//! What is particular to a kind in the pipeline: the steps that the generic machinery cannot
//! read from data. All are pure: no clock, no store, no randomness.

use serde_json::Value;

use super::claims::{Claim, Pools};
use super::field_error::FieldErrors;

/// The steps of a kind; each has a default that does nothing.
///
/// A create runs `defaults`, `prepare_create`, admission, `validate`. An update runs `defaults`,
/// `prepare_update`, admission, `validate`, `validate_update`. A write of `/status` runs
/// `prepare_status` and `validate_status`.
pub trait Rules: Send + Sync + 'static {
    /// Fills in what the schema's literal defaults cannot say.
    fn defaults(&self, _object: &mut Value) {}

    /// Readies a new object: initial status, dropped fields.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Readies an update: fields that keep their old value.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// Readies a write of `/status`; all but the status is already the old object's.
    fn prepare_status(&self, _new: &mut Value, _old: &Value) {}

    /// Checks an object on create and update.
    fn validate(&self, _object: &Value, _errors: &mut FieldErrors) {}

    /// Checks an object on create (there is no old one) and update.
    fn validate_against(&self, new: &Value, _old: Option<&Value>, errors: &mut FieldErrors) {
        self.validate(new, errors);
    }

    /// Whether changes of `status` count as a new generation.
    fn counts_status(&self) -> bool {
        false
    }

    /// Checks what may not change.
    fn validate_update(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Checks a write of `/status`.
    fn validate_status(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Checks a write of `/approval`.
    fn validate_approval(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Checks a write of another subresource that is written as the whole object.
    fn validate_part(&self, _part: &str, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Warnings for the client (deprecated fields and the like).
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The grace period of a deletion in seconds, when the kind is deleted gracefully: `asked`
    /// is the client's wish. `None` deletes at once.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Marks an object whose deletion begins, beside its metadata (a namespace's phase).
    fn mark_deleting(&self, _object: &mut Value) {}

    /// Whether something other than `metadata.finalizers` holds an object that is being deleted.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Whether a deletion is answered with the object, not with a `Status`.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// What an object claims for itself alone (addresses, ports); see [`super::claims`].
    fn claims(&self, _object: &Value) -> Vec<Claim> {
        Vec::new()
    }

    /// Whether objects of the kind have claims, so that what one wants may be taken meanwhile.
    fn has_claims(&self) -> bool {
        false
    }

    /// Fills in what must be allocated, before validation: addresses and ports. What the old
    /// object holds stays.
    fn allocate(
        &self,
        _object: &mut Value,
        _old: Option<&Value>,
        _pools: &mut dyn Pools,
        _errors: &mut FieldErrors,
    ) {
    }

    /// Turns a stored object into this view of it; for kinds that are
    /// [`super::Kind::stored_as`] others.
    #[expect(
        clippy::wrong_self_convention,
        reason = "`self` is the kind; the object is what is converted"
    )]
    fn from_stored(&self, _object: &mut Value) {}

    /// Turns this view of an object into the stored one.
    fn to_stored(&self, _object: &mut Value) {}

    /// As [`Self::from_stored`], where it may fail: a webhook does it.
    fn view(&self, object: &mut Value) -> Result<(), String> {
        self.from_stored(object);
        Ok(())
    }

    /// As [`Self::to_stored`], where it may fail.
    fn store(&self, object: &mut Value) -> Result<(), String> {
        self.to_stored(object);
        Ok(())
    }
}

/// No steps of its own.
pub struct Plain;

impl Rules for Plain {}
