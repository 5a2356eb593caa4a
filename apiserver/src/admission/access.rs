//! What `authorizer` asks in expressions, and what it is told.

use peapod_cel::Value as CelValue;
use peapod_cel::value::HostObject;

use super::request::Check;
use crate::auth::action::{Access, Action};
use crate::auth::authorizer::{Authorizer, Decision};
use crate::auth::user::User;

/// Decides whether a user may do something.
pub fn decide(authorizer: &dyn Authorizer, user: &User, verb: &str, what: &Check) -> Decided {
    let action = match &what.path {
        Some(path) => Action::Path { verb, path },
        None => Action::Resource(Access {
            verb,
            group: what.group.as_deref().unwrap_or_default(),
            resource: what.resource.as_deref().unwrap_or_default(),
            subresource: &what.subresource,
            namespace: &what.namespace,
            name: &what.name,
            ..Access::default()
        }),
    };
    let decision = authorizer.decide(user, &action);
    let allowed = decision.is_allowed();
    match decision {
        Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Decided { allowed, reason }
        }
    }
}

/// A decision, as expressions see it.
#[derive(Debug)]
pub struct Decided {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

impl HostObject for Decided {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }

    fn call(&self, function: &str, _: &[CelValue]) -> Result<CelValue, String> {
        Ok(match function {
            "allowed" => CelValue::Bool(self.allowed),
            "reason" => CelValue::text(self.reason.as_str()),
            "errored" => CelValue::Bool(false),
            "error" => CelValue::text(""),
            _ => return Err(format!("no such overload: Decision.{function}")),
        })
    }
}
