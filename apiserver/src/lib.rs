//! The API server: registry, REST, watch, authentication, admission.
