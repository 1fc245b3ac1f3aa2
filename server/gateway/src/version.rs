//! API versions: which there are, and what a request asked for.

use std::fmt;

use crate::failure::Failure;

/// The newest API version that is served; also the one of unversioned paths.
pub const MAX_API_VERSION: &str = "1.51";
/// The oldest API version that is served.
pub const MIN_API_VERSION: &str = "1.24";

/// A version of the Engine API, ordered by number (1.9 < 1.24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u32, u32);

pub(crate) const MAX: ApiVersion = ApiVersion(1, 51);
pub(crate) const MIN: ApiVersion = ApiVersion(1, 24);

impl ApiVersion {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self(major, minor)
    }

    /// Splits "/v1.41/info" into its version and "/info"; a path without a
    /// version means the newest.
    pub(crate) fn split(path: &str) -> Result<(Self, &str), Failure> {
        let Some((text, rest)) = path.strip_prefix("/v").and_then(|rest| {
            let end = rest.find('/')?;
            let text = &rest[..end];
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            digits.then(|| (text, &rest[end..]))
        }) else {
            return Ok((MAX, path));
        };
        let version = Self::parse(text);
        if version > MAX {
            return Err(Failure::bad_request(format!(
                "client version {text} is too new. Maximum supported API version is {MAX}"
            )));
        }
        if version < MIN {
            return Err(Failure::bad_request(format!(
                "client version {text} is too old. Minimum supported API version is {MIN}, \
                 please upgrade your client to a newer version"
            )));
        }
        Ok((version, rest))
    }

    /// Reads "1.41"; what is missing or too large counts as dockerd counts it,
    /// number by number.
    fn parse(text: &str) -> Self {
        let mut numbers = text.split('.').map(|part| {
            if part.is_empty() {
                0
            } else {
                part.parse().unwrap_or(u32::MAX)
            }
        });
        Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_versions_off() {
        assert_eq!(
            ApiVersion::split("/v1.41/info").unwrap(),
            (ApiVersion(1, 41), "/info")
        );
        assert_eq!(ApiVersion::split("/info").unwrap(), (MAX, "/info"));
        assert_eq!(
            ApiVersion::split("/volumes/x").unwrap(),
            (MAX, "/volumes/x")
        );
        assert_eq!(MAX.to_string(), MAX_API_VERSION);
        assert_eq!(MIN.to_string(), MIN_API_VERSION);
    }

    #[test]
    fn refuses_versions_out_of_range_in_dockerds_words() {
        let failure = ApiVersion::split("/v1.99/info").unwrap_err();
        assert_eq!(failure.status(), http::StatusCode::BAD_REQUEST);
        assert_eq!(
            failure.message(),
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        let failure = ApiVersion::split("/v1.9/info").unwrap_err();
        assert_eq!(
            failure.message(),
            "client version 1.9 is too old. Minimum supported API version is 1.24, \
             please upgrade your client to a newer version"
        );
        assert!(ApiVersion::split("/v9999999999999.1/info").is_err());
    }
}
