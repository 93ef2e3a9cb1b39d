//! **coxswain** steers, the proxy rows: a Kubernetes Ingress controller that never touches a request.
#![deny(missing_docs)]

// The pure core, in the order of the pipeline.
pub mod annotations;
pub mod model;
pub mod problem;
pub mod snapshot;
pub mod value;

// The shell.
pub mod volume;
