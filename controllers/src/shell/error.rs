//! What can go wrong in a controller.

use thiserror::Error as ThisError;

/// Why a reconciliation stopped. The queue tries again, later and later.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was tried, as `create Pod default/web-x2x`.
        action: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// An object says something that cannot be acted upon; it must be changed by its author.
    #[error("{object}: {fault}")]
    Object {
        /// Kind and key of the object.
        object: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A storage driver refused or did not answer.
    #[error("CSI driver {0}")]
    Csi(#[from] peapod_csi::Error),
    /// A storage driver could not be reached.
    #[error("{0}")]
    Driver(String),
    /// Some of several independent steps failed.
    #[error("{failed} of {total} steps failed, first: {first}")]
    Partly {
        /// How many failed.
        failed: usize,
        /// How many were tried.
        total: usize,
        /// The first failure.
        first: Box<Error>,
    },
    /// The configuration cannot work.
    #[error("controllers: {0}")]
    Config(String),
    /// A task of the controllers ended by itself.
    #[error("a controller task ended unexpectedly: {0}; this is a defect, please report it")]
    TaskEnded(String),
}

/// The result of a reconciliation step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The API's answer, when there was one.
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => status(source),
            _ => None,
        }
    }

    /// Whether the object was changed by someone else, or came into being meanwhile: the next
    /// event of its watch brings the news.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// Whether the object is gone.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// Whether an object of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.status()
            .is_some_and(kube::core::Status::is_already_exists)
    }

    /// Whether the write was refused because the namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|status| {
            let causes = status.details.as_ref().map(|details| &details.causes);
            causes.is_some_and(|causes| causes.iter().any(|c| c.reason == "NamespaceTerminating"))
        })
    }
}

fn status(error: &kube::Error) -> Option<&kube::core::Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Says what was being done when the API failed.
pub trait Doing<T> {
    /// Adds the action, as `update Node n1`.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
    /// As [`Doing::doing`], but an object that is gone is no error.
    fn unless_gone(self, action: impl FnOnce() -> String) -> Result<Option<T>>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Api {
            action: action(),
            source: Box::new(source),
        })
    }

    fn unless_gone(self, action: impl FnOnce() -> String) -> Result<Option<T>> {
        match self.doing(action) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
