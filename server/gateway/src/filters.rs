//! The `filters` query in both of its JSON forms.

use davit_client::v1;
use serde_json::Value;

use crate::{
    failure::{Failure, Result},
    request::Call,
};

/// Filters in the order of their keys; a key may have several values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Call {
    /// The request's filters; `known` are the keys that it understands.
    pub(crate) fn filters(&self, known: &[&str]) -> Result<Filters> {
        let filters = Filters::parse(self.query.get("filters"))?;
        match filters
            .0
            .iter()
            .find(|(key, _)| !known.contains(&key.as_str()))
        {
            Some((key, _)) => Err(Failure::bad_request(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }
}

impl Filters {
    /// Reads `{"label":{"a=b":true}}` (Go clients) and `{"label":["a=b"]}`
    /// (docker-py and old clients).
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || Failure::bad_request("invalid filter");
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return Err(invalid());
        };
        let mut filters = Vec::new();
        for (key, values) in object {
            match values {
                Value::Array(values) => {
                    for value in values {
                        filters.push((key.clone(), scalar(&value).ok_or_else(invalid)?));
                    }
                }
                Value::Object(values) => {
                    let set = values
                        .into_iter()
                        .filter(|(_, on)| *on != Value::Bool(false));
                    filters.extend(set.map(|(value, _)| (key.clone(), value)));
                }
                Value::Null => {}
                Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(invalid()),
            }
        }
        Ok(Self(filters))
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// These filters and one more.
    pub(crate) fn with(mut self, key: &str, value: String) -> Self {
        self.0.push((key.to_owned(), value));
        self
    }

    /// Takes all values of a key out.
    pub(crate) fn take(&mut self, key: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(k, _)| k == key);
        self.0 = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// A filter that holds one boolean.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let mut value = None;
        for text in self.all(key) {
            let flag = match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" => true,
                "0" | "false" | "f" => false,
                _ => {
                    return Err(Failure::bad_request(format!(
                        "invalid filter '{key}=[{text}]'"
                    )));
                }
            };
            if value.is_some_and(|other| other != flag) {
                return Err(Failure::bad_request(format!("invalid filter '{key}'")));
            }
            value = Some(flag);
        }
        Ok(value.unwrap_or(default))
    }

    /// As davit.v1 has them.
    pub(crate) fn to_v1(&self) -> Vec<v1::Filter> {
        self.0
            .iter()
            .map(|(key, value)| v1::Filter {
                key: key.clone(),
                value: value.clone(),
            })
            .collect()
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let go = Filters::parse(r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#);
        let python = Filters::parse(r#"{"label":["a=b","c"],"status":["exited"]}"#);
        assert_eq!(go.as_ref().unwrap(), python.as_ref().unwrap());
        assert_eq!(go.unwrap().all("label").collect::<Vec<_>>(), ["a=b", "c"]);
        assert_eq!(Filters::parse("").unwrap(), Filters::default());
        assert_eq!(Filters::parse("{}").unwrap(), Filters::default());
        let python = Filters::parse(r#"{"dangling":[true]}"#).unwrap();
        assert!(python.flag("dangling", false).unwrap());
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["x", "[]", r#"{"a":"b"}"#, r#"{"a":[[]]}"#, "\""] {
            assert_eq!(
                Filters::parse(text).unwrap_err().message(),
                "invalid filter",
                "{text}"
            );
        }
        let odd = Filters::parse(r#"{"dangling":["maybe"]}"#).unwrap();
        assert_eq!(
            odd.flag("dangling", true).unwrap_err().message(),
            "invalid filter 'dangling=[maybe]'"
        );
    }
}
