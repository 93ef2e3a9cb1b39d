//! **coxswain** steers, the proxy rows: a Kubernetes Ingress controller that never touches a request.
#![deny(missing_docs)]

// The pure core, in the order of the pipeline.
pub mod problem;
pub mod value;

// The shell.
pub mod volume;
