//! `backend-protocol`: what the proxy speaks to the endpoints. Becomes part of the upstream.
