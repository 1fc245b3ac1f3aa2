//! kill -9 at every step: each failpoint of daemon and shim, in turn.
