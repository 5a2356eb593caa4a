//! The shapes of the API's types, and what follows from them: checks, defaults, patches, apply, OpenAPI.
