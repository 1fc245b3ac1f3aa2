//! The namespace of a call: the metadata key of davit.v1, or the default one.

use davit_proto::{DEFAULT_NAMESPACE, NAMESPACE_KEY};
use tonic::{Request, Status};

/// Longest namespace, in bytes (containerd's bound for identifiers).
const MAX_BYTES: usize = 76;

/// The namespace that the caller named. `INVALID_ARGUMENT` for one that is not
/// letters and digits with single `.`, `_` or `-` between them.
pub(super) fn of<T>(request: &Request<T>) -> Result<String, Status> {
    let Some(value) = request.metadata().get(NAMESPACE_KEY) else {
        return Ok(DEFAULT_NAMESPACE.to_owned());
    };
    let namespace = value.to_str().unwrap_or_default();
    if valid(namespace) {
        return Ok(namespace.to_owned());
    }
    Err(Status::invalid_argument(format!(
        "namespace {namespace:?} is invalid: use 1 to {MAX_BYTES} letters and digits, with single '.', '_' or '-' between them"
    )))
}

fn valid(namespace: &str) -> bool {
    namespace.len() <= MAX_BYTES
        && namespace
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::valid;

    #[test]
    fn identifiers_are_containerds() {
        assert!(valid("default") && valid("k8s.io") && valid("a_b-c"));
        for bad in ["", ".", "a..b", "-a", "a/b", "a b", "ä", &"a".repeat(77)] {
            assert!(!valid(bad), "{bad}");
        }
    }
}
