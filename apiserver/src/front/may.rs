//! Who asks, and whether they may.

use http::request::Parts;

use super::{Front, Peer};
use crate::auth::action::Action;
use crate::auth::authorizer::Decision;
use crate::auth::bearer;
use crate::auth::impersonation::Wish;
use crate::auth::user::User;
use crate::rest::target::Target;
use crate::status::{Result, Status};
use crate::trail::Who;

// === impl Front ===

impl Front {
    /// Whether it is allowed: as what it is, or as the finer thing that it is a case of.
    pub(super) fn decide(&self, user: &User, action: &Action<'_>, target: &Target) -> Decision {
        let decision = self.api.authorizer.decide(user, action);
        match (&decision, action, target) {
            (Decision::NoOpinion(_), Action::Resource(access), Target::Resource(target)) => {
                let finer = access.finer(target).map(Action::Resource);
                let finer = finer.map(|finer| self.api.authorizer.decide(user, &finer));
                finer.filter(Decision::is_allowed).unwrap_or(decision)
            }
            _ => decision,
        }
    }

    /// Who asks, and as whom.
    pub(super) async fn who(&self, parts: &Parts) -> Result<Who> {
        let proved = self.authenticate(parts).await?;
        let wish = Wish::of(&parts.headers).map_err(Status::internal)?;
        if let Some(wish) = &wish {
            for access in wish.takes() {
                let action = Action::Resource(access);
                let decision = self.api.authorizer.decide(&proved, &action);
                settle(&proved, &action, decision)?;
            }
        }
        Ok(Who {
            acting_as: wish.map(|wish| wish.user()),
            proved,
        })
    }

    async fn authenticate(&self, parts: &Parts) -> Result<User> {
        let certified = match &self.peer {
            Peer::Inside(user) => return Ok(user.clone()),
            Peer::Socket { user, .. } => user,
        };
        if let Some(user) = certified {
            return Ok(user.clone());
        }
        let Some(header) = parts.headers.get(http::header::AUTHORIZATION) else {
            return match self.api.bearers.allows_anonymous(parts.uri.path()) {
                true => Ok(User::anonymous()),
                false => Err(Status::unauthorized()),
            };
        };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(Status::unauthorized)?;
        let bearer = bearer::authenticate(&self.api, token, &[]).await;
        let bearer = bearer.map_err(|fault| {
            tracing::debug!(%fault, "refused a token");
            Status::unauthorized()
        })?;
        Ok(bearer.user)
    }
}

/// What a decision means for a request.
pub(super) fn settle(user: &User, action: &Action<'_>, decision: Decision) -> Result<()> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => {
            tracing::debug!(user = user.name(), ?action, why, "refused");
            Err(Status::not_allowed(user, action, &why))
        }
    }
}
