//! Requests through the whole: manifests in files, a real nginx, real servers behind it. One theme a file; each test
//! starts one `coxswain run -f` and asks it many things.

mod annotations;
mod backends;
mod classes;
mod faults;
mod files;
mod process;
mod protocols;
mod routing;
mod settings;
mod tls;
