//! Registry credentials as docker's clients send them.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use davit_client::v1;
use serde_json::Value;

use crate::{failure::Result, fields::Fields, request::Call};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

impl Call {
    /// The credentials in `X-Registry-Auth`; `None` for none, and, as dockerd
    /// does it, for what can't be read.
    pub(crate) fn registry_auth(&self) -> Option<v1::RegistryAuth> {
        from_header(self.header("x-registry-auth"))
    }
}

fn from_header(header: &str) -> Option<v1::RegistryAuth> {
    let bytes = decode(header)?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let auth = from_json(&Fields::root(&value, "AuthConfig").ok()?).ok()?;
    (auth != v1::RegistryAuth::default()).then_some(auth)
}

/// Reads docker's AuthConfig. `auth` is "user:password" in base64 and counts
/// where the two are not given apart.
pub(crate) fn from_json(fields: &Fields<'_>) -> Result<v1::RegistryAuth> {
    let mut auth = v1::RegistryAuth {
        username: fields.string("username")?,
        password: fields.string("password")?,
        identity_token: fields.string("identitytoken")?,
        registry_token: fields.string("registrytoken")?,
    };
    let pair = decode(&fields.string("auth")?).and_then(|pair| String::from_utf8(pair).ok());
    if let Some((username, password)) = pair.as_deref().and_then(|pair| pair.split_once(':'))
        && auth.username.is_empty()
    {
        auth.username = username.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    Ok(auth)
}

/// Go's clients send the URL alphabet, some others the standard one.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE
        .decode(text)
        .or_else(|_| STANDARD.decode(text))
        .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(value: &Value) -> String {
        URL_SAFE.encode(value.to_string())
    }

    #[test]
    fn credentials_come_in_two_forms() {
        let auth = from_header(&header(&json!({"username": "a", "password": "b"}))).unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("a", "b"));
        let pair = STANDARD.encode("me:pass:word");
        let auth = from_header(&header(&json!({"auth": pair}))).unwrap();
        assert_eq!(
            (auth.username.as_str(), auth.password.as_str()),
            ("me", "pass:word")
        );
    }

    #[test]
    fn anonymous_and_broken_headers_are_no_credentials() {
        for text in ["", "e30=", "e30", "%%%", "bm90IGpzb24=", "W10="] {
            assert_eq!(from_header(text), None, "{text}");
        }
    }
}
