//! Names for containers that were given none, and the rules for names.

use crate::{Error, Result};

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "civil", "clever", "cosy", "crisp", "deft", "eager", "early", "earnest", "fair",
    "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy", "hardy",
    "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry",
    "mild", "neat", "nimble", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet",
    "ready", "robust", "serene", "sharp", "silver", "sound", "steady", "sunny", "swift", "tidy",
    "tranquil", "upbeat", "warm", "wise",
];

const SURNAMES: [&str; 64] = [
    "anning",
    "baird",
    "banneker",
    "bell",
    "boole",
    "bose",
    "brahe",
    "braun",
    "carson",
    "cavendish",
    "cooper",
    "crick",
    "curie",
    "dalton",
    "davy",
    "descartes",
    "dirac",
    "drew",
    "euler",
    "faraday",
    "fermat",
    "fleming",
    "franklin",
    "galilei",
    "gauss",
    "germain",
    "goodall",
    "halley",
    "hamilton",
    "herschel",
    "hertz",
    "hooke",
    "hopper",
    "hubble",
    "huygens",
    "jemison",
    "joule",
    "kepler",
    "lamarr",
    "leavitt",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "payne",
    "planck",
    "raman",
    "rubin",
    "rutherford",
    "shannon",
    "somerville",
    "tesla",
    "turing",
    "volta",
    "watt",
    "wren",
    "yalow",
    "yonath",
];

/// A name made from a random number; `attempt` above 0 adds a digit.
pub(crate) fn generate(random: u128, attempt: u32) -> String {
    let pick = |list: &[&'static str], bits: u128| list[usize::try_from(bits & 63).unwrap_or(0)];
    let name = format!(
        "{}_{}",
        pick(&ADJECTIVES, random),
        pick(&SURNAMES, random >> 6)
    );
    if attempt == 0 {
        name
    } else {
        format!("{name}{}", (random >> 12) % 1000)
    }
}

/// A new id: 64 hex digits.
pub(crate) fn new_id() -> String {
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}

/// Whether `id` is 64 lower-case hex digits.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == 64
        && id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Drops the leading "/" and checks the rest.
pub(crate) fn check(name: &str) -> Result<&str> {
    let name = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 255 {
        return Ok(name);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 1 to 255 of them",
        name.chars().take(300).collect::<String>()
    )))
}

/// Checks the name of a namespace by containerd's rule for identifiers; it
/// becomes a part of paths.
pub(crate) fn check_namespace(ns: &str) -> Result<()> {
    let word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if ns.len() <= 76 && ns.split(['.', '_', '-']).all(word) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid namespace {:?}: letters and digits, with single '.', '_' or '-' between them, 76 at most",
        ns.chars().take(100).collect::<String>()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(check("/web-1").unwrap(), "web-1");
        for bad in ["", "/", "-a", "a/b", "a b", "ä1", &"a".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces_are_checked() {
        for good in ["default", "k8s.io", "a-b_c"] {
            assert!(check_namespace(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-a", "a..b", &"a".repeat(77)] {
            assert!(check_namespace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_names_and_ids_pass() {
        for seed in [0, u128::MAX, 12345] {
            assert!(check(&generate(seed, 0)).is_ok());
            assert!(check(&generate(seed, 3)).is_ok());
        }
        assert!(is_id(&new_id()));
        assert!(!is_id("abc"));
    }
}
